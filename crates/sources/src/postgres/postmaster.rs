//! The lock file of a running server: who it is, and whether it takes sessions.
//!
//! Source: PostgreSQL, `src/include/utils/pidfile.h`: process, data directory, start, port, directory of the socket, first address,
//! shared memory, state; one line each.

use std::{fs, path::Path, path::PathBuf};

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub pid: i32,
    pub socket_directory: Option<PathBuf>,
    pub address: Option<String>,
    pub status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is starting, or replays what must be replayed before anybody may look; or it stops.
    Closed,
    /// It has replayed what must be, and lets nobody look (`hot_standby` is off).
    Standby,
    /// It takes sessions, in the middle of its recovery too.
    Ready,
}

/// Reads the lock file in a data directory; `None` if there is none.
pub(crate) fn read(data: &Path) -> Option<Postmaster> {
    parse(&String::from_utf8_lossy(&fs::read(data.join("postmaster.pid")).ok()?))
}

fn parse(text: &str) -> Option<Postmaster> {
    let line = |number: usize| text.lines().nth(number).map(str::trim).filter(|line| !line.is_empty());
    Some(Postmaster {
        pid: line(0)?.parse().ok()?,
        socket_directory: line(4).map(PathBuf::from),
        address: line(5).map(str::to_owned),
        status: match line(7) {
            Some("ready") => Status::Ready,
            Some("standby") => Status::Standby,
            _ => Status::Closed,
        },
    })
}

/// Whether a process of this number is there.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    // Another's process may not be signalled, and is there all the same.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_says_where_the_server_is_and_how_far() {
        let text = "4711\n/data\n1764000000\n5433\n/run/postgresql\nlocalhost\n  2 3\nstandby \n";
        let found = parse(text).unwrap();
        assert_eq!((found.pid, found.status), (4711, Status::Standby));
        assert_eq!(found.socket_directory.as_deref(), Some(Path::new("/run/postgresql")));
        assert_eq!(parse("4711\n/data\n1\n5433\n\n\n").unwrap().status, Status::Closed);
        assert_eq!(parse("").map(|found| found.pid), None);
    }
}
