//! Writes the fixtures as first inputs into `corpus/`: with them, a fuzzer starts at valid bytes.

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, choice: u8, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), [&[choice], bytes].concat())
    };
    // Headers without the body: long inputs are slow.
    let part = lsvd_fixtures::map_part();
    put("object_header", "data", 1, &lsvd_fixtures::data_object()[..4096])?;
    put("object_header", "moved", 1, &lsvd_fixtures::moved_object()[..4096])?;
    put("map_part", "whole", 1, &part)?;
    put("map_part", "region", 2, &[&[0, 0, 0, 0, 7], &part[4096..4156]].concat())?;
    put("map_part", "table", 4, &part[4156..4220])?;
    put("checkpoint", "checkpoint", 1, &lsvd_fixtures::checkpoint())?;
    put("superblock", "superblock", 3, &lsvd_fixtures::superblock())?;
    put("log_superblock", "superblock", 1, &lsvd_fixtures::log_superblock()[..128])?;
    put("log_record", "writes", 1, &lsvd_fixtures::record_writes()[..4096])?;
    put("log_record", "skip", 1, &lsvd_fixtures::record_skip())?;
    let cache = lsvd_fixtures::cache_file();
    put("cache_file", "superblock", 1, &cache[..64])?;
    put("cache_file", "entry", 0, &[&cache[16..24], &cache[4096..4224]].concat())?;
    put("nbd", "requests", 1, &requests())?;
    for (name, choice, bytes) in nvme_pdus() {
        put("nvme_pdu", name, choice, &[&[0], &bytes[..]].concat())?;
    }
    for (name, choice, bytes) in nvme_commands() {
        put("nvme_command", name, choice, &bytes)?;
    }
    for (at, setup) in [0, 3, 8, 16, 32, 56, 128].into_iter().enumerate() {
        put("nvme_session", &format!("steps-{at}"), setup, &[&[0x22], NVME_STEPS].concat())?;
        put("nvme_session", &format!("large-{at}"), setup, &[&[0xfe], NVME_STEPS].concat())?;
    }
    put("nvme_session", "flood", 0, &[&[0xfe], &nvme_flood()[..]].concat())?;
    // The first byte says: a saved configuration, the parameters of a method, a stream of requests.
    put("json_rpc", "saved", 0, SAVED)?;
    put("json_rpc", "parameters", 1, b"\x03{\"name\":\"image\"}")?;
    put("json_rpc", "stream", 2, REQUESTS)?;
    Ok(())
}

const SAVED: &[u8] = b"{\"subsystems\":[{\"subsystem\":\"nvmf\",\"config\":[{\"method\":\
    \"nvmf_create_subsystem\",\"params\":{\"nqn\":\"nqn.2019-05.io.lsvd:a\"}}]}]}";

const REQUESTS: &[u8] = b"{\"method\":\"rpc_get_methods\",\"id\":1} {\"jsonrpc\":\"2.0\"}";

/// One line for each step of `nvme_session`; see there what the numbers choose.
const NVME_STEPS: &[u8] = &[
    0, 1, 1, 10, 64, 1, 3, // Write of 4 blocks with its data in the capsule,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // which starts with this.
    0, 0, 1, 11, 0, 1, 3, // Read of them.
    0, 1, 1, 12, 0, 5, 7, // Write of 8 blocks that is asked for,
    5, 0, 0x81, // and its data in two pieces.
    0, 1, 2, 13, 1, 0, 1, // Write to the other namespace with FUA,
    10, 0, 1, 5, 0, 3, // an operation that ends, and the data.
    0, 3, 1, 14, 0, 0, 0, // Flush.
    0, 4, 1, 15, 64, 1, 3, // Compare with the first write.
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // It starts like it.
    0, 5, 1, 16, 3, 2, 1, // Write Zeroes with FUA and DEAC.
    0, 6, 1, 17, 64, 0, 0, // Dataset Management of one range,
    0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, // block 7.
    0, 7, 1, 18, 1, 0, 3, // Verify with FUA.
    10, 0, 0, 10, 2, 1, // Operations that end, one of them in vain.
    0x87, 1, 20, 0, 1, 0, 0, 0, 0, // Identify Controller.
    0x87, 1, 21, 1, 0, 0, 0, 0, 0, // Identify Namespace.
    0x87, 3, 22, 0, 0x0b, 0, 0, 9, 0, // Set Features, asynchronous events.
    0x87, 5, 31, 0, 0, 0, 0, 0, 0, // Asynchronous Event Request.
    0x87, 0, 23, 0, 0x0c, 0x40, 0, 0, 0, // Get Log Page, ANA.
    0x87, 6, 24, 0, 0, 0, 0, 0, 0, // Keep Alive.
    11, 5, 2, // The path becomes inaccessible,
    0, 0, 1, 25, 0, 1, 3, // which a read finds out,
    11, 5, 0, // and comes back.
    11, 0, 11, 1, 11, 2, 30, // A namespace goes, comes back, and becomes longer.
    12, 10, 1, 0, 0, 1, 26, 0, 1, 0, // A command with a wrong byte.
    13, 4, 4, 0, 72, 0, // Noise.
    0x89, 2, 1, 1, // The controller is disabled.
    15, 0x8f, 15, // New connections.
];

/// Steps of `nvme_session`: more payload than is taken at once, and the data for all of it.
fn nvme_flood() -> Vec<u8> {
    let writes = (0..20).flat_map(|cid| [0, 1, 2, cid, 0, 0, 255]);
    writes.chain((0..20).flat_map(|_| [5, 0, 2])).collect()
}

/// A header of each type that hosts and controllers send, with the first byte of the input.
fn nvme_pdus() -> [(&'static str, u8, Vec<u8>); 7] {
    let header = |kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32| {
        let mut bytes = vec![kind, flags, hlen, pdo];
        bytes.extend(plen.to_le_bytes());
        bytes.resize(usize::from(hlen), 0);
        bytes
    };
    let mut read = header(4, 0, 72, 0, 72);
    read[8..10].copy_from_slice(&[2, 0x40]);
    let mut data = header(6, 4, 24, 24, 24 + 4096);
    data[17] = 0x10;
    let (mut to_host, mut r2t) = (data.clone(), header(9, 0, 24, 0, 24));
    (to_host[0], r2t[17]) = (7, 0x10);
    [
        ("ic_req", 2, header(0, 0, 128, 0, 128)),
        ("command", 0, read),
        ("h2c_data", 0, data),
        ("h2c_term", 0, header(2, 0, 24, 0, 24)),
        ("response", 1, header(5, 0, 24, 0, 24)),
        ("c2h_data", 1, to_host),
        ("r2t", 1, r2t),
    ]
}

/// A command of each kind, with the first byte of the input; then a page of zeroes.
fn nvme_commands() -> [(&'static str, u8, Vec<u8>); 5] {
    let entry = |opcode: u8, nsid: u8, cdw10: u8, len: u16| {
        let mut bytes = vec![0; 64];
        (bytes[0], bytes[1], bytes[4], bytes[40], bytes[39]) = (opcode, 0x40, nsid, cdw10, 0x5a);
        bytes[32..34].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    [
        ("connect", 0, entry(0x7f, 1, 0, 1024)),
        ("identify", 1, entry(6, 0, 1, 4096)),
        ("read", 2, entry(2, 1, 0, 512)),
        ("deallocate", 2, [entry(9, 1, 0, 16), vec![0; 16]].concat()),
        ("page", 0x80, vec![0; 1024]),
    ]
}

/// Every command of a session once, and a farewell.
fn requests() -> Vec<u8> {
    let request = |kind: u16, offset: u64, len: u32, payload: &[u8]| {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend([0; 2]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u64::from(kind).to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(payload);
        bytes
    };
    let mut bytes = request(1, 1536, 512, &[5; 512]);
    for (kind, offset, len) in [(0, 1536, 512), (3, 0, 0), (4, 1536, 512), (5, 0, 512)] {
        bytes.extend(request(kind, offset, len, &[]));
    }
    for (kind, offset, len) in [(6, 1536, 1024), (7, 0, 4096), (2, 0, 0)] {
        bytes.extend(request(kind, offset, len, &[]));
    }
    bytes
}
