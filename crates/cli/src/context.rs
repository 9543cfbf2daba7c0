//! What every command is given: the configuration (read when asked for), the clock, the monitor, and standard output.

use crate::{args::Global, output::Output, progress::Progress};
use mainstay_domain::{Clock, Failure, Kind, Result, SystemClock};
use mainstay_operations::config::{self, Config};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

pub struct Context {
    named_config: Option<PathBuf>,
    pub output: Output,
    pub progress: Progress,
    cancelled: Arc<AtomicBool>,
}

impl Context {
    pub fn new(global: &Global) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        Context {
            named_config: global.config.clone(),
            output: Output::new(global.json),
            progress: Progress::new(global, Arc::clone(&cancelled)),
            cancelled,
        }
    }

    /// The configuration, read and checked now.
    pub fn config(&self) -> Result<Config> {
        Ok(Config::load(&self.config_path()?)?)
    }

    /// Where the configuration is.
    pub fn config_path(&self) -> Result<PathBuf> {
        Ok(config::find(self.named_config.as_deref())?)
    }

    /// The path given with `--config` or `MAINSTAY_CONFIG`, whether or not there is a file.
    pub fn named_config(&self) -> Option<&PathBuf> {
        self.named_config.as_ref()
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    /// Whether somebody can be asked.
    pub fn interactive(&self) -> bool {
        !self.output.is_json() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// The first SIGINT or SIGTERM asks the operation to stop in order; the second ends the process at once.
    pub fn watch_signals(&self) -> Result<()> {
        let exit = i32::from(Kind::Cancelled.exit_code());
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, exit, Arc::clone(&self.cancelled))
                .and_then(|_| flag::register(signal, Arc::clone(&self.cancelled)))
                .map_err(|error| Failure::failed("signals could not be watched").caused_by(error))?;
        }
        Ok(())
    }
}
