//! Running and stopping.

use super::{App, FLUSH_TIMEOUT, Start, StartError};
use crate::config::Settings;
use crate::proxy::is_idle;
use crate::state::State;
use crate::state::clock::{since, stopwatch};
use async_trait::async_trait;
use pingora::server::{RunArgs, ShutdownSignal, ShutdownSignalWatch};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

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
struct StopWatch(watch::Receiver<Option<Stop>>);

#[async_trait]
impl ShutdownSignalWatch for StopWatch {
    async fn recv(&self) -> ShutdownSignal {
        let mut asked = self.0.clone();
        let stop = asked.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
        match stop {
            Some(Stop::Drain) => ShutdownSignal::GracefulTerminate,
            Some(Stop::HandOver) => ShutdownSignal::GracefulUpgrade,
            Some(Stop::Now) | None => ShutdownSignal::FastShutdown,
        }
    }
}

impl App {
    /// Serves until `asked` says how to stop. Returns once every settled call is written down.
    ///
    /// Pingora sleeps through its whole grace period even when nothing is open any more. `on_idle` is
    /// called as soon as that is so and the ledger is written; the command line ends the process there.
    pub fn run(self, asked: watch::Receiver<Option<Stop>>, on_idle: impl FnOnce() + Send + 'static) {
        let App { state, writer, admin, server, open_requests, grace_period, .. } = self;
        let outbox = Arc::clone(state.outbox());
        let writer = Arc::new(std::sync::Mutex::new(Some(writer)));
        let flush = {
            let writer = Arc::clone(&writer);
            move || {
                let writer = writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                if let Some(Err(error)) = writer.map(|writer| writer.stop(FLUSH_TIMEOUT)) {
                    tracing::error!(%error, "stopped with calls that are not in the ledger");
                }
            }
        };
        let watcher = {
            let (mut asked, flush) = (asked.clone(), flush.clone());
            move || {
                let Some(stop) = wait_for_stop(&mut asked) else { return };
                if stop == Stop::Now {
                    return;
                }
                // Listeners close a moment after the signal, or five seconds after a hand-over began.
                let begun = stopwatch();
                let closing = if stop == Stop::HandOver { Duration::from_secs(6) } else { Duration::from_millis(300) };
                std::thread::sleep(closing);
                while !(is_idle(&open_requests) && state.outbox().open_holds() <= 0)
                    && since(begun) < closing + grace_period
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                if is_idle(&open_requests) {
                    flush();
                    on_idle();
                }
            }
        };
        let watcher = std::thread::Builder::new().name("drain".to_owned()).spawn(watcher);
        if let Err(error) = &watcher {
            tracing::error!(%error, "no thread to watch the drain; stopping will take the whole grace period");
        }
        server.run(RunArgs { shutdown_signal: Box::new(StopWatch(asked)) });
        // A runtime that is shut down drops its tasks a moment later, on its own threads; whatever was
        // still open settles itself then, and must find the writer alive.
        let begun = stopwatch();
        while outbox.open_holds() > 0 && since(begun) < FLUSH_TIMEOUT {
            std::thread::sleep(Duration::from_millis(2));
        }
        admin.stop();
        flush();
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
        let thread = std::thread::Builder::new().name("tollgate".to_owned()).spawn(move || app.run(asked, || {}));
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
