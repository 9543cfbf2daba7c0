//! The names in a directory, sorted, in one piece of memory.

use rustix::{fd::AsFd, fs::RawDir, io::Errno};

/// Sorted by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    /// Start and length of each.
    index: Vec<(u32, u16)>,
}

impl Names {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn get(&self, n: usize) -> &[u8] {
        let (start, length) = self.index[n];
        &self.bytes[start as usize..start as usize + usize::from(length)]
    }

    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let at = self.index.partition_point(|&(start, length)| {
            &self.bytes[start as usize..start as usize + usize::from(length)] < name
        });
        (at < self.len() && self.get(at) == name).then_some(at)
    }

    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.index
            .retain(|&(start, length)| keep(&bytes[start as usize..start as usize + usize::from(length)]));
    }

    /// In the order given.
    pub fn from_list(list: &[&[u8]]) -> Names {
        let mut names = Names::default();
        list.iter().for_each(|name| names.push(name));
        names
    }

    fn push(&mut self, name: &[u8]) {
        self.index.push((self.bytes.len() as u32, name.len() as u16));
        self.bytes.extend_from_slice(name);
    }

    fn sort(&mut self) {
        let Names { bytes, index } = self;
        let name =
            |&(start, length): &(u32, u16)| &bytes[start as usize..start as usize + usize::from(length)];
        index.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    }
}

/// Reads the names of an open directory, without `.` and `..`; `extra` is added. `buffer` is kept between calls.
///
/// A directory of more than 4 GiB of names is refused with `EOVERFLOW`.
pub(crate) fn read_names(
    directory: impl AsFd,
    extra: Option<&[u8]>,
    buffer: &mut Vec<u8>,
) -> rustix::io::Result<Names> {
    let mut names = Names::default();
    if let Some(name) = extra {
        names.push(name);
    }
    buffer.clear();
    buffer.reserve(64 << 10);
    loop {
        let mut grow = false;
        let mut entries = RawDir::new(directory.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INVAL) => {
                    grow = true;
                    break;
                }
                // The directory was removed while open: it has no entries.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error),
            };
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                if names.bytes.len() + name.len() > u32::MAX as usize {
                    return Err(Errno::OVERFLOW);
                }
                names.push(name);
            }
        }
        if !grow {
            break;
        }
        let capacity = buffer.capacity();
        buffer.reserve(capacity * 2);
    }
    names.sort();
    Ok(names)
}
