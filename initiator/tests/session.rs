//! The initiator and the RAM target on one loopback: what goes in comes out, for every way of
//! moving it, and a peer that breaks a rule is told so.
#![expect(clippy::unwrap_used, reason = "an error here is a failed test")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lsvd_buf::BufPool;
use lsvd_initiator::{
    Command, Controller, Ended, Error, Operation, Options, Queue, QueueOptions, Range, RawPeer,
    Until, Workload, drive, pdu,
};
use lsvd_nvmet::wire::Status;
use lsvd_nvmet::{
    LbaSize, Listener, NamespaceOptions, Origin, RamNamespace, SubsystemConfig, Target,
    TargetOptions, accept, serve,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

const SUBSYSTEM: &str = "nqn.2019-05.io.lsvd:cnode1";
const BLOCK: u32 = 4096;

/// Serves one namespace of 16 MiB until the runtime ends.
async fn target() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let options = TargetOptions::new("nqn.2019-05.io.lsvd:discovery");
    let target = Arc::new(Target::new(options).unwrap());
    let subsystem = SubsystemConfig {
        nqn: SUBSYSTEM.to_owned(),
        serial: "SPDK_000001".to_owned(),
        model: "LSVD NVMe controller".to_owned(),
        allow_any_host: true,
        namespaces_max: 32,
        ana_reporting: false,
    };
    target.add_subsystem(subsystem).unwrap();
    let namespace = RamNamespace::new(Uuid::from_u128(1), LbaSize::B4096, 4096);
    target.add_namespace(SUBSYSTEM, Arc::new(namespace), NamespaceOptions::default()).unwrap();
    target.add_listener(SUBSYSTEM, Listener { address, advertised: None }).unwrap();
    tokio::spawn(async move {
        let (_stop, stopped) = watch::channel(false);
        while let Ok((stream, peer)) = socket.accept().await {
            let origin = Origin { listener: address, local: address, peer };
            let (target, stopped) = (target.clone(), stopped.clone());
            tokio::spawn(async move {
                let accepted = accept(stream, origin, target, BufPool::default()).await;
                if let Ok(Some(accepted)) = accepted {
                    // How a connection ends is what the other end of these tests looks at.
                    let _ended = serve(accepted, stopped).await;
                }
            });
        }
    });
    address
}

async fn connect(queue: QueueOptions) -> (Controller, Queue) {
    let options = Options { queue, ..Options::new(SUBSYSTEM) };
    let mut controller = Controller::connect(target().await, options).await.unwrap();
    assert!(controller.set_queues(1).await.unwrap() >= 1);
    let queue = controller.open_queue(1, 32).await.unwrap();
    (controller, queue)
}

fn pattern(bytes: usize, seed: u64) -> Bytes {
    let mut data = BytesMut::zeroed(bytes);
    fastrand::Rng::with_seed(seed).fill(&mut data);
    data.freeze()
}

#[tokio::test]
async fn what_is_written_is_read_back_under_every_agreement() {
    let plain = QueueOptions::default();
    let agreements = [
        plain,
        QueueOptions { header_digest: true, ..plain },
        QueueOptions { data_digest: true, ..plain },
        QueueOptions { header_digest: true, data_digest: true, r2ts: 4, ..plain },
        QueueOptions { flow_control: false, r2ts: 16, ..plain },
        QueueOptions { alignment: 128, data_digest: true, ..plain },
    ];
    for agreement in agreements {
        let (controller, mut queue) = connect(agreement).await;
        let sizes = [1, 2, 3, 16, 31, 64, 200];
        let mut lba = 0;
        for blocks in sizes {
            let data = pattern((blocks * BLOCK) as usize, blocks.into());
            queue.submit(Command::write(1, lba, BLOCK, data)).unwrap();
            lba += u64::from(blocks);
        }
        while queue.outstanding() > 0 {
            queue.next_completion().await.unwrap().ok().unwrap();
        }
        lba = 0;
        for blocks in sizes {
            let read = Command::read(1, lba, blocks, BLOCK);
            let data = queue.execute(read).await.unwrap().ok().unwrap().data;
            let expected = pattern((blocks * BLOCK) as usize, blocks.into());
            assert!(data == expected, "{blocks} blocks under {agreement:?}");
            lba += u64::from(blocks);
        }
        drop(queue);
        controller.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn every_command_of_a_session_is_understood() {
    let (mut controller, mut queue) = connect(QueueOptions::default()).await;
    assert_eq!(controller.identity().serial, "SPDK_000001");
    assert_eq!(controller.identity().model, "LSVD NVMe controller");
    assert_eq!(controller.identity().subsystem, SUBSYSTEM);
    assert_eq!(controller.active_namespaces().await.unwrap(), [1]);
    let namespace = controller.identify_namespace(1).await.unwrap();
    assert_eq!((namespace.blocks, namespace.block_bytes), (4096, BLOCK));
    controller.command(Command::keep_alive()).await.unwrap();
    controller.command(Command::get_feature(0x07, 0)).await.unwrap();
    let whole = controller.read_log_page(0x02, u32::MAX, 512, 512).await.unwrap();
    let pieces = controller.read_log_page(0x02, u32::MAX, 512, 20).await.unwrap();
    assert_eq!(whole.len(), pieces.len());

    let data = pattern(4 * BLOCK as usize, 1);
    let write = Command::write(1, 0, BLOCK, data.clone()).force_unit_access();
    let range = Range { lba: 2, blocks: 1 };
    let commands = [
        write,
        Command::flush(1),
        Command::compare(1, 0, BLOCK, data.clone()),
        Command::verify(1, 0, 4),
        Command::write_zeroes(1, 1, 1, true),
        Command::deallocate(1, &[range, range]),
    ];
    for command in commands {
        let name = format!("{command:?}");
        let completion = queue.execute(command).await.unwrap();
        assert_eq!(completion.status, Status::SUCCESS, "{name}");
    }
    let read = queue.execute(Command::read(1, 0, 2, BLOCK)).await.unwrap().ok().unwrap().data;
    assert_eq!(read[..BLOCK as usize], data[..BLOCK as usize]);
    assert!(read[BLOCK as usize..].iter().all(|byte| *byte == 0));
    let differs = queue.execute(Command::compare(1, 0, BLOCK, data)).await.unwrap();
    assert_eq!((differs.status.sct(), differs.status.sc()), (2, 0x85));
    let beyond = queue.execute(Command::read(1, 4096, 1, BLOCK)).await.unwrap().ok();
    let Err(Error::Status(status)) = beyond else { panic!("a read past the end: {beyond:?}") };
    assert_eq!((status.sct(), status.sc()), (0, 0x80));
}

#[tokio::test]
async fn a_load_completes_every_command_at_any_depth() {
    let (_controller, mut queue) = connect(QueueOptions::default()).await;
    for (operation, depth) in [(Operation::Write, 1), (Operation::Read, 31), (Operation::Write, 31)]
    {
        let workload = Workload {
            nsid: 1,
            blocks: 4096,
            block_bytes: BLOCK,
            blocks_each: 1,
            operation,
            depth,
            until: Until::Commands(500),
            seed: 3,
        };
        let report = drive(&mut queue, &workload).await.unwrap();
        assert_eq!((report.commands, report.latencies.len()), (500, 500));
        assert_eq!(queue.outstanding(), 0);
    }
}

#[tokio::test]
async fn a_raw_peer_sees_how_the_target_ends_the_connection() {
    let address = target().await;
    let mut peer = RawPeer::connect(address).await.unwrap();
    assert_eq!(peer.initialize().await.unwrap().kind, pdu::kind::ICRESP);
    // A PDU type that does not exist: Invalid PDU Header Field, at its first byte.
    peer.send(&[0x3f, 0, 24, 0, 24, 0, 0, 0]).await.unwrap();
    peer.send(&[0; 16]).await.unwrap();
    let ended = peer.ended(pdu::Shape::default()).await.unwrap();
    assert_eq!(ended, Ended::Terminated { status: 1, info: 0 });

    let mut peer = RawPeer::connect(address).await.unwrap();
    peer.finish().await.unwrap();
    assert_eq!(peer.ended(pdu::Shape::default()).await.unwrap(), Ended::Closed);
}
