//! The tar archives of a base backup, read as they stream in.
//!
//! Source: PostgreSQL, `src/port/tar.c` (`tarCreateHeader`): ustar headers of 512 bytes, numbers in octal or, where they do not
//! fit, in base 256; names of at most 99 bytes.

use crate::postgres::replication::{BaseBackup, Chunk};
use mainstay_domain::{Failure, Result};
use std::io;

const BLOCK: usize = 512;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// A member of an archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Without a slash at its end.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

/// The archives of a base backup, one after the other.
pub struct Archives<'b, 's> {
    backup: &'b mut BaseBackup<'s>,
    buffer: Vec<u8>,
    at: usize,
    /// The archive that begins next.
    next: Option<Option<u32>>,
    over: bool,
    /// Bytes of the current member that were not read, and of its padding.
    left: u64,
    padding: u64,
}

impl<'b, 's> Archives<'b, 's> {
    pub fn new(backup: &'b mut BaseBackup<'s>) -> Archives<'b, 's> {
        Archives { backup, buffer: Vec::new(), at: 0, next: None, over: false, left: 0, padding: 0 }
    }

    /// Goes on to the next archive: a tablespace's oid, or the data directory. `None` after the last.
    pub fn next_archive(&mut self) -> Result<Option<Option<u32>>> {
        while self.fill()? {
            self.at = self.buffer.len();
        }
        (self.left, self.padding) = (0, 0);
        Ok(self.next.take())
    }

    /// The next member of the archive; what was not read of the last one is passed over.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        self.pass(self.left + self.padding)?;
        let mut header = [0; BLOCK];
        if !self.fill()? {
            return Ok(None);
        }
        self.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let member = parse(&header).ok_or_else(|| broken("a header that makes no sense"))?;
        self.left = member.size;
        self.padding = member.size.next_multiple_of(BLOCK as u64) - member.size;
        Ok(Some(member))
    }

    /// Fills `out` with the next bytes of the member.
    pub fn read(&mut self, out: &mut [u8]) -> Result<()> {
        if out.len() as u64 > self.left {
            return Err(broken("a file that is shorter than it should be"));
        }
        self.read_exact(out)?;
        self.left -= out.len() as u64;
        Ok(())
    }

    /// What is left of the member.
    pub fn rest(&mut self) -> Rest<'_, 'b, 's> {
        Rest(self)
    }

    fn read_exact(&mut self, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            if !self.fill()? {
                return Err(broken("an end within a file"));
            }
            let count = out.len().min(self.buffer.len() - self.at);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&self.buffer[self.at..self.at + count]);
            self.at += count;
            out = later;
        }
        Ok(())
    }

    fn pass(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            if !self.fill()? {
                return Err(broken("an end within a file"));
            }
            let now = count.min((self.buffer.len() - self.at) as u64);
            self.at += now as usize;
            count -= now;
        }
        Ok(())
    }

    /// Whether there are bytes of the current archive at hand, now.
    fn fill(&mut self) -> Result<bool> {
        while self.at == self.buffer.len() {
            if self.over || self.next.is_some() {
                return Ok(false);
            }
            match self.backup.receive().map_err(|trouble| trouble.into_failure())? {
                Chunk::Data(bytes) => {
                    self.buffer.clear();
                    self.buffer.extend_from_slice(bytes);
                    self.at = 0;
                }
                Chunk::Archive(archive) => self.next = Some(archive),
                Chunk::End => self.over = true,
            }
        }
        Ok(true)
    }
}

/// What is left of a member, as a reader.
pub struct Rest<'a, 'b, 's>(&'a mut Archives<'b, 's>);

impl io::Read for Rest<'_, '_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = (out.len() as u64).min(self.0.left) as usize;
        self.0.read(&mut out[..count]).map_err(io::Error::other)?;
        Ok(count)
    }
}

fn broken(what: &str) -> Failure {
    Failure::failed(format!("the server's base backup has {what}")).hint("Run the backup again.")
}

fn parse(header: &[u8; BLOCK]) -> Option<Member> {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if CHECKSUM.contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    if number(&header[CHECKSUM])? != sum || &header[257..262] != b"ustar" {
        return None;
    }
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let mut path = text(&header[..100]);
    let prefix = text(&header[345..500]);
    if !prefix.is_empty() {
        path = [&prefix[..], b"/", &path].concat();
    }
    let start = if path.starts_with(b"./") { 2 } else { 0 };
    let mut path = path.split_off(start);
    let kind = match header[156] {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Directory,
        b'2' => Kind::Symlink,
        _ => return None,
    };
    if path.ends_with(b"/") {
        path.pop();
    }
    // A name that leads elsewhere is nothing that a server sends.
    let sound = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    if !path.split(|byte| *byte == b'/').all(sound) {
        return None;
    }
    Some(Member {
        path,
        kind,
        mode: u32::try_from(number(&header[100..108])? & 0o7777).ok()?,
        uid: u32::try_from(number(&header[108..116])?).ok()?,
        gid: u32::try_from(number(&header[116..124])?).ok()?,
        size: if kind == Kind::File { number(&header[124..136])? } else { 0 },
        modified: i64::try_from(number(&header[136..148])?).ok()?,
    })
}

/// Octal digits; or, if the first byte says so, the rest as a number in base 256.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, rest) => {
            rest.iter().try_fold(0_u64, |all, byte| all.checked_mul(256)?.checked_add((*byte).into()))
        }
        _ => {
            let text = std::str::from_utf8(field).ok()?;
            let text = text.trim_matches(|c| c == ' ' || c == '\0');
            if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(path: &str, kind: u8, size: &[u8]) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..108].copy_from_slice(b"0000600 ");
        header[108..116].copy_from_slice(b"0000005 ");
        header[116..124].copy_from_slice(b"0000006 ");
        header[124..124 + size.len()].copy_from_slice(size);
        header[136..148].copy_from_slice(b"14371573612 ");
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    #[test]
    fn headers_are_read_and_names_that_lead_elsewhere_refused() {
        let member = parse(&header("base/5/1249", b'0', b"00000400000 ")).unwrap();
        assert_eq!((&member.path[..], member.size, member.mode), (&b"base/5/1249"[..], 131_072, 0o600));
        assert_eq!((member.uid, member.gid, member.kind), (5, 6, Kind::File));
        let large = [&[0x80][..], &[0; 6], &[2, 0, 0, 0, 0]].concat();
        assert_eq!(parse(&header("x", b'0', &large)).unwrap().size, 2 << 32);
        assert_eq!(parse(&header("pg_wal/", b'5', b"")).unwrap().path, b"pg_wal");
        for path in ["../x", "/etc/passwd", "a//b", "a/../b", ""] {
            assert!(parse(&header(path, b'0', b"")).is_none(), "{path}");
        }
        let mut wrong = header("x", b'0', b"");
        wrong[3] ^= 1;
        assert!(parse(&wrong).is_none(), "its checksum");
    }
}
