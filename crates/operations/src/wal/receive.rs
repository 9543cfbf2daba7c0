//! `mainstay wal receive`: the log as it is written, over the replication protocol, into the archive.
//!
//! What is acknowledged to the server is durable in the repository: a whole segment, under the name and with the bytes that `wal
//! push` gives it, or a fragment of the open one. Nothing else is ever said of it, so a server that waits for us before it
//! acknowledges a commit (`synchronous_standby_names`) loses none of those with its machine. A slot keeps at the server what is
//! not acknowledged yet; each session begins with the open segment's first byte, and what comes is held against what fragments
//! hold of it.

mod shipper;
mod start;
mod watch;

pub use shipper::Counts;

use crate::{
    access,
    config::{Config, SourceConfig},
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Result, Severity,
    wal::{Lsn, Segment, SegmentSize},
};
use mainstay_repository::{Repository, wal::Archive};
use mainstay_sources::postgres::{
    cluster::{ClusterConfig, build::refuse_log_pages},
    replication::{Identity, LogStream, Message, Session, Slot, Standing, Status, Streamed, Trouble, slots},
    wal::Ancestry,
    wire::ConnectSpec,
};
use shipper::{Shipping, ship};
use std::{
    io::Read,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use watch::{Bell, Watch};

/// The server hears from us at least this often, and we ask it for an answer.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// A server that says nothing for so long, although it was asked, is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long to wait for anything before looking whether the user wants to stop.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two attempts to connect: twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The same where the server's clients wait for us.
const WAITED_FOR: Duration = Duration::from_millis(500);
/// The same trouble is not told more often than this.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// How to receive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The source of kind cluster, where there are several.
    pub source: Option<&'a str>,
    /// Go on where the server still has log, if it does not have what comes next.
    pub accept_gap: bool,
}

/// What was received until the user stopped it.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Received {
    #[serde(flatten)]
    pub counts: Counts,
    pub up_to: Option<Lsn>,
}

/// Receives until the user stops it. What has come by then is archived and acknowledged.
///
/// # Errors
/// What a second attempt cannot mend: `Refused` (a gap, other log than before, another cluster), rights, a wrong configuration.
pub fn receive(
    config: &Config,
    app: &str,
    options: &Options<'_>,
    clock: Arc<dyn Clock>,
    monitor: &dyn Monitor,
) -> Result<Received> {
    let (source, cluster) = cluster_of(config, app, options.source)?;
    let repository = access::open(config, &access::repository_of(config, app)?, clock)?;
    let spec = cluster.connect_spec()?;
    let synchronous = AtomicBool::new(false);
    let every = Duration::from_nanos(cluster.receive.fragment_every.nanoseconds.unsigned_abs());
    let watch = Watch {
        spec: &spec,
        application_name: &cluster.receive.application_name,
        every: every.min(Duration::from_secs(5)),
        slot_warn: cluster.slot_warn,
        synchronous: &synchronous,
    };
    let slot = cluster.slot(app, source);
    let mut receiver = Receiver {
        repository: &repository,
        spec: &spec,
        cluster,
        slot: &slot,
        every,
        synchronous: &synchronous,
        accept_gap: options.accept_gap,
        monitor,
        system: None,
        made: false,
        received: Received { counts: Counts::default(), up_to: None },
    };
    monitor.step("wal receive", None);
    let bell = Bell::default();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.run(&bell, monitor));
        let outcome = receiver.run();
        bell.ring();
        outcome
    })?;
    let Received { counts, .. } = receiver.received;
    monitor.done("wal receive", &format!("{} segments, {} fragments", counts.segments, counts.fragments));
    Ok(receiver.received)
}

/// The source whose log is meant.
fn cluster_of<'c>(
    config: &'c Config,
    app: &str,
    asked: Option<&str>,
) -> Result<(&'c str, &'c ClusterConfig)> {
    let sources = access::app_of(config, app)?.sources.iter();
    let mut clusters = sources.filter_map(|(name, source)| match source {
        SourceConfig::Cluster(cluster) if asked.is_none_or(|asked| asked == name) => {
            Some((name.as_str(), &**cluster))
        }
        _ => None,
    });
    match (clusters.next(), clusters.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Failure::usage(match asked {
            Some(asked) => format!("{app} has no source of kind cluster named {asked:?}"),
            None => format!("{app} has no source of kind cluster"),
        })
        .hint("WAL is received from a cluster: see `mainstay config show`.")),
        (Some(_), Some(_)) => Err(Failure::usage(format!("{app} has several sources of kind cluster"))
            .hint("Say which one's WAL: --source NAME.")),
    }
}

struct Receiver<'a> {
    repository: &'a Repository,
    spec: &'a ConnectSpec,
    cluster: &'a ClusterConfig,
    slot: &'a str,
    every: Duration,
    synchronous: &'a AtomicBool,
    accept_gap: bool,
    monitor: &'a dyn Monitor,
    /// The cluster that was met first.
    system: Option<u64>,
    /// The slot was made by this session: it keeps nothing of what came before.
    made: bool,
    received: Received,
}

/// How a stream ended, where nothing went wrong.
enum Ended {
    /// The user stops it.
    Stopped,
    /// The server goes on along another timeline.
    Switched,
}

impl Receiver<'_> {
    /// Session after session, until the user stops it or one fails for good.
    fn run(&mut self) -> Result<()> {
        let mut pause = Duration::ZERO;
        let mut told: Option<(String, Instant)> = None;
        while !self.monitor.cancelled() {
            let met = self.system.is_some();
            let before = self.received.counts;
            match self.session() {
                Ok(()) => return Ok(()),
                // At first, an address that does not answer is a mistake; later, a server that is away for a while.
                Err(Trouble::Passing(failure)) if met || self.system.is_some() => {
                    if self.received.counts != before {
                        pause = Duration::ZERO;
                    }
                    if self.monitor.cancelled() {
                        return Ok(());
                    }
                    pause = next_pause(pause, self.synchronous.load(Ordering::Relaxed));
                    let text = failure.to_string();
                    let is_known =
                        told.as_ref().is_some_and(|(said, at)| *said == text && at.elapsed() < TOLD_EVERY);
                    if !is_known {
                        let again = format!("{text}; connecting again in {:.1} s", pause.as_secs_f32());
                        self.monitor.notice(Severity::Warning, &again);
                        told = Some((text, Instant::now()));
                    }
                    shipper::pause(pause, self.monitor);
                }
                Err(trouble) => return Err(trouble.into_failure()),
            }
        }
        Ok(())
    }

    /// One session with the server: who it is, the slot, its line of history, and then one timeline after the other.
    fn session(&mut self) -> Result<(), Trouble> {
        let name = &self.cluster.receive.application_name;
        let mut session = Session::open(self.spec, name)?;
        let mut identity = session.identify()?;
        self.refuse_another(identity.system)?;
        self.made = session.create_slot(self.slot)?;
        if !self.made && self.is_lost() {
            // It keeps nothing, and never will again: what it kept is gone, or there without it.
            session.drop_slot(self.slot)?;
            self.made = session.create_slot(self.slot)?;
            let text = format!(
                "the server had given up the slot {}: it is made anew, and keeps the WAL from now on",
                self.slot
            );
            self.monitor.notice(Severity::Warning, &text);
        }
        let slot_start = if self.made { None } else { session.slot_start(self.slot)? };
        // Until the watch has looked, the setting says it.
        let names = session.setting("synchronous_standby_names")?;
        let called = names.contains(name.as_str()) || names.contains('*');
        self.synchronous.fetch_or(called, Ordering::Relaxed);
        let size = session.segment_size()?;
        refuse_log_pages(session.setting("wal_block_size")?.parse().unwrap_or_default())?;
        let repository = self.repository;
        let archive = Archive::of(repository, identity.system);
        loop {
            let ancestry = start::line_of_history(&mut session, &archive, identity.timeline, self.monitor)?;
            let beginnings = start::beginnings(repository, &identity, &ancestry, size, slot_start)
                .map_err(start::of_archive)?;
            match self.begin(&mut session, &archive, &identity, &ancestry, size, &beginnings)? {
                Ended::Stopped => return Ok(()),
                Ended::Switched => identity = session.identify()?,
            }
        }
    }

    /// Whether the server has given our slot up. If it cannot be asked, that is found out by what it still has.
    fn is_lost(&self) -> bool {
        let found = watch::connect(self.spec).ok().and_then(|mut asked| slots::slots(&mut asked).ok());
        let lost =
            |slot: &Slot| slot.name == self.slot && slot.standing(self.cluster.slot_warn) == Standing::Lost;
        found.is_some_and(|slots| slots.iter().any(lost))
    }

    fn refuse_another(&mut self, system: u64) -> Result<()> {
        match self.system.replace(system) {
            Some(before) if before != system => Err(Failure::new(
                Kind::Refused,
                format!("another cluster ({system}, not {before}) answers at {}", self.spec.describe()),
            )
            .hint(
                "If that is meant, start `mainstay wal receive APP` again: its WAL has an archive of its own.",
            )),
            _ => Ok(()),
        }
    }

    /// Streams from the first of these places of which the server has the log.
    fn begin(
        &mut self,
        session: &mut Session,
        archive: &Archive<'_>,
        identity: &Identity,
        ancestry: &Ancestry,
        size: SegmentSize,
        beginnings: &[Segment],
    ) -> Result<Ended, Trouble> {
        let mut places = beginnings.iter().copied().peekable();
        let now = ancestry.segment(Segment::holding(identity.timeline, identity.flushed, size), size);
        while let Some(place) = places.next() {
            let gone = match self.stream(session, archive, place, size) {
                Err(Trouble::Gone(failure)) => failure,
                other => return other,
            };
            if places.peek().is_some() {
                continue;
            }
            if !self.accept_gap || place == now {
                if self.made {
                    // Nobody will receive from it until somebody decides, and it would keep log all the while.
                    session.drop_slot(self.slot)?;
                }
                return Err(Trouble::Other(start::gap(beginnings[0], gone)));
            }
            // A slot that was given up stays given up.
            if !self.made {
                session.drop_slot(self.slot)?;
                session.create_slot(self.slot)?;
            }
            let text =
                format!("the archive has a gap from {} to {now}: make a new base backup", beginnings[0]);
            self.monitor.notice(Severity::Warning, &text);
            return self.stream(session, archive, now, size);
        }
        Err(Trouble::Other(Failure::failed("the server's WAL has no place to begin with")))
    }

    /// Streams a timeline from the beginning of a segment on.
    fn stream(
        &mut self,
        session: &mut Session,
        archive: &Archive<'_>,
        segment: Segment,
        size: SegmentSize,
    ) -> Result<Ended, Trouble> {
        let known = self.known(archive, segment).map_err(start::of_archive)?;
        let mut log = match session.stream(self.slot, segment.start(size), segment.timeline)? {
            Streamed::Log(log) => log,
            Streamed::Nothing(_) => return Ok(Ended::Switched),
        };
        let from = segment.start(size);
        let text = format!(
            "receiving timeline {} of {} from {from} on through the slot {}",
            segment.timeline,
            self.spec.describe(),
            self.slot
        );
        self.monitor.notice(Severity::Info, &text);
        let (wake, waker) = pair()?;
        let shipping = Shipping::new(segment, size, known, self.every, self.synchronous, waker);
        let monitor = self.monitor;
        let streamed = std::thread::scope(|scope| {
            let shipper = scope.spawn(|| ship(&shipping, archive, monitor));
            let streamed = self.pump(&mut log, &shipping, &wake);
            // Whatever ended the stream: what has come is archived.
            shipping.close();
            let shipped = shipper.join();
            match shipped {
                Ok(()) => streamed,
                Err(_) => Err(Trouble::Other(Failure::failed("the thread that archives panicked"))),
            }
        });
        self.received.counts.add(shipping.counts());
        self.received.up_to = self.received.up_to.max(Some(shipping.durable()));
        if let Some(failure) = shipping.take_failure() {
            return Err(match failure.kind {
                Kind::Busy => Trouble::Passing(failure),
                _ => Trouble::Other(failure),
            });
        }
        let ended = streamed?;
        // The last word: a server that waits for it would keep its clients waiting.
        log.tell(&self.status(&shipping, false))?;
        log.finish()?;
        Ok(ended)
    }

    /// What fragments hold of the segment that the stream begins with.
    fn known(&self, archive: &Archive<'_>, segment: Segment) -> Result<Option<(u32, Vec<u8>)>> {
        match archive.own_beginning(segment)? {
            None => Ok(None),
            Some((last, Ok(bytes))) => Ok(Some((last, bytes))),
            Some((last, Err(error))) if error.is_damage() => {
                let text =
                    format!("fragments of {segment} are damaged ({error}); it is received and archived anew");
                self.monitor.notice(Severity::Warning, &text);
                Ok(Some((last, Vec::new())))
            }
            Some((_, Err(error))) => Err(error.into()),
        }
    }

    fn status(&self, shipping: &Shipping<'_>, reply: bool) -> Status {
        Status { durable: shipping.durable(), now: self.repository.clock().now(), reply }
    }

    /// Takes what comes and says what is durable, until the timeline ends or the user stops it.
    fn pump(
        &self,
        log: &mut LogStream<'_>,
        shipping: &Shipping<'_>,
        wake: &UnixStream,
    ) -> Result<Ended, Trouble> {
        let (mut told, mut told_at, mut heard_at) = (Lsn(0), None::<Instant>, Instant::now());
        let mut asked = false;
        loop {
            if self.monitor.cancelled() || shipping.has_failed() {
                return Ok(Ended::Stopped);
            }
            let due = told_at.is_none_or(|at| at.elapsed() >= SAY_EVERY);
            if due || asked || shipping.durable() > told {
                let status = self.status(shipping, due);
                log.tell(&status)?;
                (told, told_at, asked) = (status.durable, Some(Instant::now()), false);
            }
            if shipping.is_full() {
                log.pause(wake.as_fd(), PATIENCE)?;
                heard_at = Instant::now(); // it may have said something that was not listened to
                drain(wake);
                continue;
            }
            match log.next(wake.as_fd(), PATIENCE)? {
                Message::Log { start, end_there, bytes } => {
                    heard_at = Instant::now();
                    shipping.take(start, bytes, end_there)?;
                }
                Message::Alive { reply, .. } => {
                    heard_at = Instant::now();
                    if reply {
                        asked = true;
                        shipping.hurry();
                    }
                }
                Message::Quiet => {
                    drain(wake);
                    if heard_at.elapsed() > SILENCE {
                        let silent = format!("{} has not answered for a minute", self.spec.describe());
                        return Err(Trouble::Passing(Failure::failed(silent)));
                    }
                }
                Message::Ended => return Ok(Ended::Switched),
            }
        }
    }
}

/// How long to wait after another attempt that failed. Commits wait for whom the server waits for: it comes back at once.
fn next_pause(last: Duration, is_waited_for: bool) -> Duration {
    match is_waited_for {
        true => WAITED_FOR,
        false => (last * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE),
    }
}

/// Two ends, of which neither waits.
fn pair() -> Result<(UnixStream, UnixStream)> {
    let made = UnixStream::pair().and_then(|(one, other)| {
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((one, other))
    });
    made.map_err(|error| Failure::failed("a pair of sockets cannot be made").caused_by(error))
}

fn drain(mut wake: &UnixStream) {
    let mut nothing = [0; 64];
    while matches!(wake.read(&mut nothing), Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_clients_wait_for_us_is_connected_to_again_within_a_second() {
        let (mut pause, mut waited_for) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..20 {
            (pause, waited_for) = (next_pause(pause, false), next_pause(waited_for, true));
            assert!(waited_for <= Duration::from_secs(1));
        }
        assert_eq!(pause, LONGEST_PAUSE, "others are not asked more often than is good");
        assert!(next_pause(pause, true) <= Duration::from_secs(1), "also when it begins to wait only then");
    }
}
