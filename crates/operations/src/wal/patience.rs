//! Fetching for a standby, which is there to wait: trouble that passes is waited for.
//!
//! PostgreSQL understands two kinds of failure of its `restore_command`. Up to 125 the file is not there: the log ends, or a timeline came
//! from nowhere. From 126 on the server is shut down. A store that is away for a moment is neither, so the command does not end before it is
//! back. What does not pass (damage, a wrong key, a configuration that makes no sense) ends it at once. So does a request to
//! promote the standby: it would not be heard meanwhile. SIGTERM, by which a server that is shut down ends this command, is left to do that.

use mainstay_domain::{Failure, Kind, Result};
use mainstay_sources::postgres::cluster::standby;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Between two attempts: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often it is looked whether there is still somebody to wait for.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is said what is waited for.
const TOLD: Duration = Duration::from_secs(60);

/// Whether it can be over without anybody's doing anything to this machine. A store that is not mounted holds no repository.
fn passes(kind: Kind) -> bool {
    matches!(kind, Kind::Failed | Kind::Busy | Kind::NoRepository)
}

/// Fetches to `path`; if it is for a standby, again and again while what keeps it from it can pass. `tell` hears now and then of what.
///
/// # Errors
/// What the last attempt met.
pub fn fetch_patiently(
    path: &Path,
    tell: &mut dyn FnMut(&Failure),
    mut fetch: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let (mut pause, mut told) = (Duration::ZERO, None::<Instant>);
    loop {
        // Looked at first, so that what was asked for meanwhile gets one more attempt.
        let data = standby::directory_of(path);
        let promoted = data.as_deref().is_some_and(standby::is_to_be_promoted);
        let failure = match fetch() {
            Err(failure) if passes(failure.kind) => failure,
            fetched => return fetched,
        };
        let Some(data) = data.filter(|data| standby::runs_on(data)) else { return Err(failure) };
        if promoted {
            return Err(failure.during("the standby is to be promoted, and its archive cannot be read").hint(
                "It stops, so that it does not open without what is archived. Start it again and promote it when the archive is back; if \
                 that will never be, set restore_command = 'false' beforehand: what was archived and not replayed yet is lost then.",
            ));
        }
        if told.is_none_or(|told| told.elapsed() >= TOLD) {
            told = Some(Instant::now());
            tell(&failure.during("the standby waits for its archive"));
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let begun = Instant::now();
        while begun.elapsed() < pause && standby::runs_on(&data) && !standby::is_to_be_promoted(&data) {
            std::thread::sleep(LOOK);
        }
    }
}
