//! The bytes to look at: a file that is read where needed, or an object in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Untrusted bytes of known length.
#[derive(Debug)]
pub struct Input {
    name: String,
    len: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
#[error("neither a file nor a block device")]
struct NoFile;

impl Input {
    /// A file or block device, opened for reading.
    ///
    /// # Errors
    /// It cannot be opened, or is nothing with a length.
    pub fn file(path: &Path) -> io::Result<Self> {
        // Before it is opened: opening a FIFO waits for somebody to write to it.
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, NoFile));
        }
        let mut file = File::open(path)?;
        // Unlike the metadata, the end is also right for a block device.
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self { name: path.display().to_string(), len, bytes: Bytes::File(file) })
    }

    /// An object that was read already.
    #[must_use]
    pub fn memory(name: String, bytes: Vec<u8>) -> Self {
        Self { name, len: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Up to `len` bytes from byte `at` on; fewer at the end.
    ///
    /// # Errors
    /// Those of the file.
    pub fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(left);
        match &self.bytes {
            Bytes::Memory(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let end = at.saturating_add(len);
                Ok(bytes.get(at..end).unwrap_or_default().to_vec())
            }
            Bytes::File(file) => {
                let mut buffer = vec![0; len];
                let mut filled = 0;
                while filled < len {
                    match file.read_at(&mut buffer[filled..], at + filled as u64) {
                        // Somebody shortened the file since it was opened.
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                buffer.truncate(filled);
                Ok(buffer)
            }
        }
    }

    /// All bytes, from the first on.
    #[must_use]
    pub fn reader(&self) -> impl Read + '_ {
        InputReader { input: self, at: 0 }
    }
}

struct InputReader<'a> {
    input: &'a Input,
    at: u64,
}

impl Read for InputReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(self.at, buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn reading_stops_at_the_end_of_file_and_memory_alike() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(scratch.path(), b"0123456789").unwrap();
        let file = Input::file(scratch.path()).unwrap();
        let memory = Input::memory("m".into(), b"0123456789".to_vec());
        for input in [file, memory] {
            assert_eq!(input.read(8, 10).unwrap(), b"89");
            assert_eq!(input.read(10, 1).unwrap(), b"");
            assert_eq!(input.read(u64::MAX, usize::MAX).unwrap(), b"");
            let mut all = Vec::new();
            input.reader().read_to_end(&mut all).unwrap();
            assert_eq!(all, b"0123456789");
        }
    }
}
