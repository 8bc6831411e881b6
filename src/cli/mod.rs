//! The command line: `serve`, `check`, `explain`, `backup`, `restore`, `verify`, `demo`. Exit codes: 0 done, 1 bad
//! config or failed start, 2 wrong usage. Errors are one readable line each, on stderr.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the part that talks to a terminal")]

mod database;
mod demo;
mod explain;
mod logging;
mod pretend;

use crate::app::{App, Start, Stop};
use crate::config::{self, Fault, Settings};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::watch;

/// Decides who may spend what at LLM providers, and keeps the books.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version = version(), about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy and the admin listener in the foreground.
    ///
    /// SIGTERM drains, SIGHUP reloads the config file, SIGQUIT hands the listeners to a process
    /// that was started with --upgrade.
    Serve {
        #[command(flatten)]
        config: ConfigArg,
        /// Take the listeners over from the process that runs now.
        #[arg(long)]
        upgrade: bool,
    },
    /// Validate the config file and print every problem; start nothing.
    Check {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Ask a running gateway what it would do with a request, and why. Nothing is sent or counted.
    ///
    /// The admin token comes from TOLLGATE_ADMIN_TOKEN, the config file, or the file beside the database.
    Explain(explain::Explain),
    /// Make a consistent copy of the database, also while a server runs on it.
    ///
    /// The copy is as small as can be, for its owner only, and opens only with the encryption key, which is
    /// not in it.
    Backup {
        /// The new file.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Put a copy into the place of the database, and keep the present one beside it.
    ///
    /// No server may run. The copy is checked first: that it is whole, that this version reads it, and that
    /// the encryption key opens it.
    Restore {
        /// What `backup` made.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Sum every entry of the ledger up again, and hold the result to balances and sums.
    ///
    /// Changes nothing; a server may run. Prints a line for each mismatch, and then ends with 1.
    Verify {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Run everything on this machine with a pretend provider: no account, no config.
    Demo {
        /// Port of the proxy.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Port of the admin listener.
        #[arg(long, default_value_t = 8081)]
        admin_port: u16,
    },
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// The config file [default: $TOLLGATE_CONFIG, ./config/tollgate.yaml, /etc/tollgate/tollgate.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    // clap prints its own errors and ends with 2 for wrong usage.
    let done = match Cli::parse().command {
        Command::Serve { config, upgrade } => serve(&config.path(), upgrade),
        Command::Check { config } => check(&config.path()),
        Command::Explain(explain) => explain.run(),
        Command::Backup { file, config } => database::backup(&config.path(), &file),
        Command::Restore { file, config } => database::restore(&config.path(), &file),
        Command::Verify { config } => database::verify(&config.path()),
        Command::Demo { port, admin_port } => demo::run(port, admin_port),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(lines) => {
            lines.iter().for_each(|line| eprintln!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// Lines for stderr.
type Failed = Vec<String>;

fn check(path: &Path) -> Result<(), Failed> {
    let settings = load(path)?;
    settings.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    println!(
        "{}: good ({} provider(s), {} declared virtual key(s), {})",
        path.display(),
        settings.declared.providers.len(),
        settings.declared.virtual_keys.len(),
        match &settings.pricing.table {
            Some(table) => format!("{} prices", table.catalog.len()),
            None => format!("prices from {}", settings.pricing.source.label()),
        }
    );
    Ok(())
}

fn serve(path: &Path, upgrade: bool) -> Result<(), Failed> {
    let settings = load(path)?;
    logging::start(&settings.log);
    settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let start = Start { upgrade, config_path: Some(path.to_owned()) };
    let app = App::build(settings, &start).map_err(|error| vec![format!("tollgate: {error}")])?;
    run_until_signal(app, || {})
}

/// Serves until a signal says otherwise. `tidy_up` is called at the very end.
fn run_until_signal(app: App, tidy_up: impl FnOnce() + Clone + Send + 'static) -> Result<(), Failed> {
    let (ask, asked) = watch::channel(None);
    let reloader = app.reloader();
    let listen_for_signals = move || {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
            .map_err(|error| vec![format!("tollgate: cannot listen for signals: {error}")])?;
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut stopping = false;
            for signal in signals.forever() {
                let stop = match signal {
                    // Asked a second time, nobody wants to wait any more.
                    _ if stopping && signal != SIGHUP => Stop::Now,
                    // A successor may have read the store already.
                    SIGHUP if stopping => {
                        tracing::warn!("not reloaded: this process is stopping");
                        continue;
                    }
                    SIGHUP => {
                        reloader.reload();
                        continue;
                    }
                    SIGTERM => Stop::Drain,
                    SIGQUIT => Stop::HandOver,
                    _ => Stop::Now,
                };
                tracing::info!(?stop, "stopping");
                stopping = true;
                let _ = ask.send(Some(stop));
            }
        });
        thread.map_err(|error| vec![format!("tollgate: cannot listen for signals: {error}")])
    };
    listen_for_signals()?;
    let (listen, admin) = app.addresses();
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    tracing::info!(proxy = listen.join(", "), %admin, version = version(), "serving");
    let last = tidy_up.clone();
    let all_written = app.run(asked, |all_written| {
        tidy_up();
        std::process::exit(if all_written { 0 } else { 1 })
    });
    last();
    if all_written { Ok(()) } else { Err(vec!["tollgate: stopped with calls that are not in the ledger".to_owned()]) }
}

fn load(path: &Path) -> Result<Settings, Failed> {
    load_by(path, config::load)
}

fn load_by<T>(path: &Path, read: impl FnOnce(&Path) -> Result<T, Vec<Fault>>) -> Result<T, Failed> {
    if !path.exists() {
        let hint = "name one with --config or TOLLGATE_CONFIG, or see the smallest one in config/minimal.yaml";
        return Err(vec![format!("tollgate: there is no config file {}; {hint}", path.display())]);
    }
    read(path).map_err(|faults| {
        let mut lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let count = lines.len();
        lines.push(format!("tollgate: {} has {count} problem{}", path.display(), if count == 1 { "" } else { "s" }));
        lines
    })
}

impl ConfigArg {
    fn path(self) -> PathBuf {
        let from_env = || std::env::var_os("TOLLGATE_CONFIG").map(PathBuf::from);
        let nearby = || Some(PathBuf::from("config/tollgate.yaml")).filter(|path| path.exists());
        self.config.or_else(from_env).or_else(nearby).unwrap_or_else(|| PathBuf::from("/etc/tollgate/tollgate.yaml"))
    }
}

fn version() -> &'static str {
    env!("TOLLGATE_VERSION")
}
