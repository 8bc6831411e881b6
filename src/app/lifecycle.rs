//! Running and stopping.

use super::{App, FLUSH_TIMEOUT, Start, StartError};
use crate::admin;
use crate::config::Settings;
use crate::proxy::is_idle;
use crate::state::State;
use crate::state::clock::{since, stopwatch};
use crate::store::writer::Writer;
use async_trait::async_trait;
use pingora::server::{ExecutionPhase, RunArgs, ShutdownSignal, ShutdownSignalWatch};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, oneshot, watch};

const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a drain looks whether it is over.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// Listeners close a moment after they are told to.
const LISTENERS_CLOSE: Duration = Duration::from_millis(200);

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Accept nothing more, let open requests finish, at most for the grace period.
    Drain,
    /// Hand the listeners to the process that waits for them, then drain.
    HandOver,
    /// At once. Open calls are charged by estimate.
    Now,
}

/// Somebody who may ask for the end.
struct StopWatch {
    asked: watch::Receiver<Option<Stop>>,
    closer: Arc<Closer>,
}

#[async_trait]
impl ShutdownSignalWatch for StopWatch {
    async fn recv(&self) -> ShutdownSignal {
        let mut asked = self.asked.clone();
        let stop = asked.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
        match stop {
            Some(Stop::Drain) => ShutdownSignal::GracefulTerminate,
            Some(Stop::HandOver) => {
                // The successor reads the store once it has the listeners: a change that is made here after that
                // would not reach it.
                let closer = Arc::clone(&self.closer);
                let (done, closed) = oneshot::channel();
                std::thread::spawn(move || {
                    closer.close_admin();
                    // Nobody waits any more if the process is ending by now.
                    let _ = done.send(());
                });
                let _ = closed.await;
                ShutdownSignal::GracefulUpgrade
            }
            Some(Stop::Now) | None => ShutdownSignal::FastShutdown,
        }
    }
}

/// What is closed at the end: once, by whoever gets there first. Others wait until it is done.
struct Closer {
    state: Arc<State>,
    open_requests: Arc<AtomicI64>,
    admin: Mutex<Option<admin::Server>>,
    writer: Mutex<Option<Writer>>,
    all_written: AtomicBool,
}

impl Closer {
    fn close_admin(&self) {
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(admin) = admin {
            admin.stop();
        }
    }

    /// Writes down what is settled, and says whether all of it is. Nothing is admitted any more.
    fn flush(&self) -> bool {
        self.state.outbox().close();
        // Held until the flush is over: the process must not end while another thread is at it.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take() {
            match writer.stop(FLUSH_TIMEOUT) {
                Ok(()) => self.all_written.store(true, Ordering::Release),
                Err(error) => tracing::error!(%error, "stopped with calls that are not in the ledger"),
            }
        }
        self.all_written.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        is_idle(&self.open_requests) && self.state.outbox().open_holds() <= 0
    }
}

impl App {
    /// Serves until `asked` says how to stop. Returns once every settled call is written down, and
    /// whether that worked.
    ///
    /// Pingora sleeps through its whole grace period even when nothing is open any more. `on_idle` is
    /// called as soon as that is so and the ledger is written; the command line ends the process there.
    pub fn run(self, asked: watch::Receiver<Option<Stop>>, on_idle: impl FnOnce(bool) + Send + 'static) -> bool {
        let App { state, writer, admin, server, open_requests, grace_period, lock: _lock, .. } = self;
        let closer = Arc::new(Closer {
            state: Arc::clone(&state),
            open_requests,
            admin: Mutex::new(Some(admin)),
            writer: Mutex::new(Some(writer)),
            all_written: AtomicBool::new(false),
        });
        let watch_drain = {
            let (asked, closer, phases) = (asked.clone(), Arc::clone(&closer), server.watch_execution_phase());
            move || {
                if drained(asked, &closer, phases, grace_period) {
                    on_idle(closer.flush());
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("drain".to_owned()).spawn(watch_drain) {
            tracing::error!(%error, "no thread to watch the drain; stopping will take the whole grace period");
        }
        server.run(RunArgs { shutdown_signal: Box::new(StopWatch { asked, closer: Arc::clone(&closer) }) });
        // A runtime that is shut down drops its tasks a moment later, on its own threads; whatever was
        // still open settles itself then, and must find the writer alive.
        let begun = stopwatch();
        while state.outbox().open_holds() > 0 && since(begun) < FLUSH_TIMEOUT {
            std::thread::sleep(Duration::from_millis(2));
        }
        closer.close_admin();
        closer.flush()
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub fn reloader(&self) -> Arc<super::Reloader> {
        Arc::clone(&self.reloader)
    }

    pub fn addresses(&self) -> (&[SocketAddr], SocketAddr) {
        (&self.listen, self.admin_address)
    }
}

/// Waits for a drain to begin and to end. False: there was none, or its time is over.
fn drained(
    mut asked: watch::Receiver<Option<Stop>>,
    closer: &Closer,
    mut phases: broadcast::Receiver<ExecutionPhase>,
    grace_period: Duration,
) -> bool {
    if wait_for_stop(&mut asked).is_none_or(|stop| stop == Stop::Now) {
        return false;
    }
    let hurried = || *asked.borrow() == Some(Stop::Now);
    // Until listeners are handed over, which takes seconds, calls are still accepted here.
    while !hurried() {
        match phases.try_recv() {
            Ok(ExecutionPhase::ShutdownGracePeriod) | Err(TryRecvError::Closed) => break,
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty) => std::thread::sleep(DRAIN_LOOK),
        }
    }
    std::thread::sleep(LISTENERS_CLOSE);
    let begun = stopwatch();
    while !hurried() && since(begun) < grace_period {
        if closer.is_idle() {
            // Whoever slips in now is refused, not forgotten.
            closer.state.outbox().close();
            if closer.is_idle() {
                return true;
            }
        }
        std::thread::sleep(DRAIN_LOOK);
    }
    hurried()
}

fn wait_for_stop(asked: &mut watch::Receiver<Option<Stop>>) -> Option<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(asked.wait_for(Option::is_some)).ok().and_then(|stop| *stop)
}

/// A gateway on threads of its own within this process.
pub struct Running {
    state: Arc<State>,
    reloader: Arc<super::Reloader>,
    ask: watch::Sender<Option<Stop>>,
    thread: Option<JoinHandle<()>>,
    listen: Vec<SocketAddr>,
    admin: SocketAddr,
}

impl Running {
    /// Starts everything and returns once the listeners answer.
    pub fn start(settings: Settings) -> Result<Running, StartError> {
        let app = App::build(settings, &Start::default())?;
        let (state, reloader) = (Arc::clone(&app.state), app.reloader());
        let (listen, admin) = (app.listen.clone(), app.admin_address);
        let (ask, asked) = watch::channel(None);
        let thread = std::thread::Builder::new().name("tollgate".to_owned()).spawn(move || {
            app.run(asked, |_| {});
        });
        let thread = thread.map_err(|source| StartError::Thread { what: "the proxy", source })?;
        let running = Running { state, reloader, ask, thread: Some(thread), listen, admin };
        let begun = stopwatch();
        for &address in &running.listen {
            while TcpStream::connect(address).is_err() {
                if since(begun) > LISTEN_TIMEOUT {
                    return Err(StartError::NotListening(address));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(running)
    }

    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    pub fn reloader(&self) -> &Arc<super::Reloader> {
        &self.reloader
    }

    /// Where the proxy listens.
    pub fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops at once, and returns when the ledger is written.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.ask.send(Some(Stop::Now));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
