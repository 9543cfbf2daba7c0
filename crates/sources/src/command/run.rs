//! Runs a command for what it does, not for what it writes.

use super::{capture::Leash, config::CommandLine};
use mainstay_domain::{Failure, Monitor, Result, time::Span};
use std::{
    io,
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// Runs it to its end. What it says on its standard error goes to ours; what it writes goes nowhere.
///
/// # Errors
/// `Failed` if it fails, or took longer than `timeout`; `Preflight` if it cannot be started; `Cancelled` if `monitor` says so.
pub fn run(
    line: &CommandLine,
    environment: &[(&str, &str)],
    timeout: Span,
    monitor: &dyn Monitor,
) -> Result<()> {
    let unstarted =
        |error: io::Error| Failure::preflight(format!("{line} cannot be started")).caused_by(error);
    let mut command = line.prepare();
    command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().map_err(unstarted)?;
    let leash = Leash::new(child, Duration::from_nanos(timeout.nanoseconds.unsigned_abs()));
    let (ended, status) = thread::scope(|scope| {
        let watch = scope.spawn(|| leash.watch(monitor));
        let status = leash.wait();
        (watch.join().ok().flatten(), status)
    });
    judge(line, status.map_err(unstarted)?, ended.is_some(), monitor, timeout)
}

fn judge(
    line: &CommandLine,
    status: ExitStatus,
    ended: bool,
    monitor: &dyn Monitor,
    timeout: Span,
) -> Result<()> {
    match (ended, status.success()) {
        (false, true) => Ok(()),
        (true, _) if monitor.cancelled() => {
            Err(Failure::new(mainstay_domain::Kind::Cancelled, format!("{line} was stopped")))
        }
        (true, _) => Err(Failure::failed(format!("{line} was ended after {timeout}: it took too long"))),
        (false, false) => {
            Err(Failure::failed(format!("{line} failed ({status})")).hint("What it said stands above."))
        }
    }
}
