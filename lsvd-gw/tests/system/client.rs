//! An NBD client of our own, as plain as it can be: one request at a time, simple replies, nothing
//! retried. It shows a test exactly what was acknowledged and with which error.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const INIT: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;

const FLAG_FUA: u16 = 1;

/// The server could not read or write.
pub(crate) const EIO: u32 = 5;
/// The server does not like the request.
pub(crate) const EINVAL: u32 = 22;

/// An answer that takes longer than this is a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to one export.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    size: u64,
    cookie: u64,
}

/// Why there was no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection is gone: nobody knows whether the request was carried out.
    Lost(#[expect(dead_code, reason = "shown by tests that fail")] io::Error),
    /// The server said no, with this error number or option reply.
    Refused(u32),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// What the server did, or why not.
pub(crate) type Answer<T> = Result<T, Failure>;

impl Client {
    pub(crate) fn connect(socket: &Path, export: &str) -> Answer<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut hello = [0; 18];
        stream.read_exact(&mut hello)?;
        assert_eq!(hello[..8], INIT.to_be_bytes());
        assert_eq!(hello[8..16], OPTION.to_be_bytes());
        // Fixed newstyle, no zeroes: the server offers both.
        stream.write_all(&3_u32.to_be_bytes())?;
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(export.as_bytes());
        data.extend_from_slice(&0_u16.to_be_bytes());
        let mut go = OPTION.to_be_bytes().to_vec();
        go.extend_from_slice(&OPTION_GO.to_be_bytes());
        go.extend_from_slice(&(data.len() as u32).to_be_bytes());
        go.extend_from_slice(&data);
        stream.write_all(&go)?;
        let mut size = 0;
        loop {
            let (kind, data) = option_reply(&mut stream)?;
            match kind {
                REPLY_ACK => return Ok(Self { stream, size, cookie: 0 }),
                REPLY_INFO if data[..2] == INFO_EXPORT.to_be_bytes() => {
                    size = u64::from_be_bytes(data[2..10].try_into().expect("eight bytes"));
                }
                REPLY_INFO => {}
                error => {
                    assert!(error & REPLY_ERROR != 0, "reply {error:x} to GO");
                    return Err(Failure::Refused(error));
                }
            }
        }
    }

    /// Size of the export in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn send(&mut self, kind: u16, flags: u16, offset: u64, len: u32, data: &[u8]) -> Answer<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend_from_slice(&REQUEST.to_be_bytes());
        request.extend_from_slice(&flags.to_be_bytes());
        request.extend_from_slice(&kind.to_be_bytes());
        request.extend_from_slice(&self.cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&len.to_be_bytes());
        request.extend_from_slice(data);
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        assert_eq!(reply[..4], REPLY.to_be_bytes(), "a simple reply");
        assert_eq!(reply[8..], self.cookie.to_be_bytes(), "the reply to our request");
        match u32::from_be_bytes(reply[4..8].try_into().expect("four bytes")) {
            0 => Ok(()),
            error => Err(Failure::Refused(error)),
        }
    }

    pub(crate) fn read(&mut self, offset: u64, len: usize) -> Answer<Vec<u8>> {
        self.send(0, 0, offset, length(len), &[])?;
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> Answer<()> {
        self.send(1, if fua { FLAG_FUA } else { 0 }, offset, length(data.len()), data)
    }

    pub(crate) fn flush(&mut self) -> Answer<()> {
        self.send(3, 0, 0, 0, &[])
    }

    pub(crate) fn trim(&mut self, offset: u64, len: usize) -> Answer<()> {
        self.send(4, 0, offset, length(len), &[])
    }

    pub(crate) fn write_zeroes(&mut self, offset: u64, len: usize) -> Answer<()> {
        self.send(6, 0, offset, length(len), &[])
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("requests are below 32 MiB")
}

fn option_reply(stream: &mut UnixStream) -> Answer<(u32, Vec<u8>)> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    assert_eq!(head[..8], OPTION_REPLY.to_be_bytes());
    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let mut data = vec![0; word(16) as usize];
    stream.read_exact(&mut data)?;
    Ok((word(12), data))
}
