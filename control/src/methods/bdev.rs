//! Methods about volumes, which SPDK calls bdevs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::params::Params;
use super::{Called, answer, done};
use crate::error::{Failure, RpcError};
use crate::gateway::{Gateway, NewVolume, OperationCounters, Volume};
use crate::limits::VOLUME_WAIT_MAX;
use crate::settings::{Settings, SettingsError};

/// How often a client's wait for a volume looks for it.
const WAIT_STEP: Duration = Duration::from_millis(50);

pub(super) async fn call(gateway: &dyn Gateway, params: Params<'_>) -> Called {
    Some(match params.method {
        "bdev_lsvd_create" => done(create(gateway, params).await),
        "bdev_lsvd_delete" => done(delete(gateway, params).await),
        "bdev_lsvd_resize" => done(resize(gateway, params).await),
        "bdev_get_bdevs" => get_bdevs(gateway, params).await.and_then(answer),
        "bdev_get_iostat" => get_iostat(gateway, params).await.and_then(answer),
        "bdev_reset_iostat" => done(reset_iostat(gateway, params).await),
        // Nothing is examined here, so that is over at once. Saved configurations ask for it.
        "bdev_wait_for_examine" => done(params.none()),
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Create {
    image_name: String,
    pool_name: String,
    #[serde(default)]
    config: String,
}

async fn create(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let Create { image_name, pool_name, config } =
        params.decode_own(&["image_name", "pool_name", "config"])?;
    let settings = tokio::task::spawn_blocking(move || Settings::resolve(&config))
        .await
        .map_err(|error| RpcError::internal(error.to_string()))?
        .map_err(|error| bad_settings(&error))?;
    let new = NewVolume { pool: pool_name, image: image_name, settings };
    gateway.create_volume(new).await.map_err(|failure| match failure {
        Failure::Exists => RpcError::FILE_EXISTS,
        failure => RpcError::internal(format!("Failed to create lsvd bdev: {}", failure.reasons())),
    })
}

fn bad_settings(error: &SettingsError) -> RpcError {
    let source = std::error::Error::source(error);
    let why = source.map_or_else(String::new, |source| format!(": {source}"));
    RpcError::invalid(format!("{error}{why}"))
}

#[derive(Deserialize)]
struct Delete {
    image_name: String,
}

async fn delete(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let Delete { image_name } = params.decode_own(&["image_name"])?;
    gateway.delete_volume(&image_name).await.map_err(|failure| match failure {
        Failure::NotFound => RpcError::NO_DEVICE,
        failure => {
            RpcError::internal(format!("Failed to destroy lsvd bdev: {}", failure.reasons()))
        }
    })
}

#[derive(Deserialize)]
struct Resize {
    name: String,
    /// MiB, as in SPDK's methods that resize.
    new_size: u64,
}

async fn resize(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let Resize { name, new_size } = params.decode_own(&["name", "new_size"])?;
    let size_bytes = new_size.checked_mul(1 << 20).ok_or(RpcError::INVALID_PARAMETERS)?;
    gateway.resize_volume(&name, size_bytes).await.map_err(|failure| match failure {
        Failure::NotFound => RpcError::NO_DEVICE,
        failure => RpcError::internal(format!("Failed to resize lsvd bdev: {}", failure.reasons())),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBdevs {
    name: Option<String>,
    /// Milliseconds to wait for the volume.
    #[serde(default)]
    timeout: u32,
}

async fn get_bdevs(gateway: &dyn Gateway, params: Params<'_>) -> Result<Vec<Bdev>, RpcError> {
    let GetBdevs { name, timeout } = params.decode_or(RpcError::NOT_DECODED)?;
    let Some(name) = name else {
        return Ok(gateway.volumes().await.into_iter().map(Bdev::of).collect());
    };
    let found = async {
        loop {
            if let Some(volume) = find(&gateway.volumes().await, &name) {
                return volume.clone();
            }
            sleep(WAIT_STEP).await;
        }
    };
    let deadline = Instant::now() + Duration::from_millis(timeout.into()).min(VOLUME_WAIT_MAX);
    let volume = timeout_at(deadline, found).await.map_err(|_| RpcError::NO_DEVICE)?;
    Ok(vec![Bdev::of(volume)])
}

/// A volume by its name, or by its UUID as an alias.
fn find<'a>(volumes: &'a [Volume], name: &str) -> Option<&'a Volume> {
    let uuid = Uuid::parse_str(name).ok();
    volumes.iter().find(|volume| volume.name == name || Some(volume.uuid) == uuid)
}

#[derive(Serialize)]
struct Bdev {
    name: String,
    aliases: [Uuid; 1],
    product_name: &'static str,
    block_size: u32,
    num_blocks: u64,
    preferred_write_alignment: u32,
    preferred_write_granularity: u32,
    optimal_write_size: u32,
    preferred_unmap_alignment: u32,
    preferred_unmap_granularity: u32,
    uuid: Uuid,
    numa_id: i32,
    assigned_rate_limits: RateLimits,
    claimed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_type: Option<&'static str>,
    zoned: bool,
    supported_io_types: IoTypes,
    driver_specific: DriverSpecific,
}

#[derive(Serialize, Default)]
struct RateLimits {
    rw_ios_per_sec: u64,
    rw_mbytes_per_sec: u64,
    r_mbytes_per_sec: u64,
    w_mbytes_per_sec: u64,
}

#[derive(Serialize, Default)]
struct IoTypes {
    read: bool,
    write: bool,
    unmap: bool,
    flush: bool,
    reset: bool,
    nvme_admin: bool,
    nvme_io: bool,
    nvme_io_md: bool,
    write_zeroes: bool,
    zcopy: bool,
    get_zone_info: bool,
    zone_management: bool,
    zone_append: bool,
    compare: bool,
    compare_and_write: bool,
    abort: bool,
    seek_hole: bool,
    seek_data: bool,
    copy: bool,
    nvme_iov_md: bool,
    nvme_nssr: bool,
    write_uncorrectable: bool,
}

#[derive(Serialize)]
struct DriverSpecific {
    lsvd: Lsvd,
}

#[derive(Serialize)]
struct Lsvd {
    pool_name: String,
    image_name: String,
    config: Settings,
}

impl Bdev {
    fn of(volume: Volume) -> Self {
        Self {
            name: volume.name.clone(),
            aliases: [volume.uuid],
            product_name: "LSVD volume",
            block_size: volume.sector_size,
            num_blocks: volume.sectors,
            preferred_write_alignment: 0,
            preferred_write_granularity: 0,
            optimal_write_size: 0,
            preferred_unmap_alignment: 0,
            preferred_unmap_granularity: 0,
            uuid: volume.uuid,
            numa_id: -1,
            assigned_rate_limits: RateLimits::default(),
            claimed: volume.claimed,
            claim_type: volume.claimed.then_some("exclusive_write"),
            zoned: false,
            supported_io_types: IoTypes {
                read: true,
                write: true,
                unmap: true,
                flush: true,
                reset: true,
                write_zeroes: true,
                compare: true,
                abort: true,
                ..IoTypes::default()
            },
            driver_specific: DriverSpecific {
                lsvd: Lsvd {
                    pool_name: volume.pool,
                    image_name: volume.name,
                    config: volume.settings,
                },
            },
        }
    }
}

/// `name` is what clients up to 26.1 send, `names` what later ones do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetIostat {
    name: Option<String>,
    names: Option<Vec<String>>,
    #[serde(default)]
    per_channel: bool,
    #[serde(default)]
    reset_mode: Reset,
}

/// What becomes of counters that were read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reset {
    /// They begin anew.
    All,
    /// Only the slowest and the fastest operation begin anew. We do not know these.
    Maxmin,
    /// Only errors are counted anew. They are not counted here; the log has each.
    Error,
    /// Nothing.
    #[default]
    None,
}

/// Ticks of our clock are nanoseconds.
pub(super) const TICK_RATE: u64 = 1_000_000_000;

#[derive(Serialize)]
struct Iostat {
    tick_rate: u64,
    ticks: u64,
    bdevs: Vec<BdevStat>,
}

async fn get_iostat(gateway: &dyn Gateway, params: Params<'_>) -> Result<Iostat, RpcError> {
    let GetIostat { name, names, per_channel, reset_mode } =
        params.decode_or(RpcError::NOT_DECODED)?;
    // Counters are kept for a volume as a whole.
    if per_channel {
        return Err(RpcError::INVALID_PARAMETERS);
    }
    let volumes = gateway.volumes().await;
    let wanted = chosen(&volumes, names.or(name.map(|name| vec![name])))?;
    if reset_mode == Reset::All {
        for volume in &wanted {
            reset(gateway, volume).await?;
        }
    }
    let bdevs = wanted.into_iter().map(BdevStat::of).collect();
    Ok(Iostat { tick_rate: TICK_RATE, ticks: ticks(gateway.uptime()), bdevs })
}

/// The volumes with these names; all without.
fn chosen(volumes: &[Volume], names: Option<Vec<String>>) -> Result<Vec<&Volume>, RpcError> {
    match names {
        None => Ok(volumes.iter().collect()),
        Some(names) => {
            names.iter().map(|name| find(volumes, name).ok_or(RpcError::NO_DEVICE)).collect()
        }
    }
}

/// Begins counting anew after what was read: what happened in between is not lost.
async fn reset(gateway: &dyn Gateway, volume: &Volume) -> Result<(), RpcError> {
    let counted = gateway.forget_counters(&volume.name, volume.counters).await;
    counted.map_err(|_| RpcError::NO_DEVICE)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetIostat {
    name: Option<String>,
    mode: Option<Reset>,
}

async fn reset_iostat(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let ResetIostat { name, mode } = params.decode_or(RpcError::NOT_DECODED)?;
    let volumes = gateway.volumes().await;
    let wanted = chosen(&volumes, name.map(|name| vec![name]))?;
    if mode.unwrap_or(Reset::All) == Reset::All {
        for volume in wanted {
            reset(gateway, volume).await?;
        }
    }
    Ok(())
}

fn ticks(time: Duration) -> u64 {
    // Centuries fit.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct BdevStat {
    name: String,
    bytes_read: u64,
    num_read_ops: u64,
    bytes_written: u64,
    num_write_ops: u64,
    bytes_unmapped: u64,
    num_unmap_ops: u64,
    bytes_copied: u64,
    num_copy_ops: u64,
    read_latency_ticks: u64,
    max_read_latency_ticks: u64,
    min_read_latency_ticks: u64,
    write_latency_ticks: u64,
    max_write_latency_ticks: u64,
    min_write_latency_ticks: u64,
    unmap_latency_ticks: u64,
    max_unmap_latency_ticks: u64,
    min_unmap_latency_ticks: u64,
    copy_latency_ticks: u64,
    max_copy_latency_ticks: u64,
    min_copy_latency_ticks: u64,
    io_error: Empty,
}

/// `{}`.
#[derive(Serialize)]
struct Empty {}

impl BdevStat {
    fn of(volume: &Volume) -> Self {
        let counters = volume.counters;
        let latency = |kind: OperationCounters| {
            (ticks(kind.latency), ticks(kind.latency_max), ticks(kind.latency_min))
        };
        let (read, write, unmap) =
            (latency(counters.read), latency(counters.write), latency(counters.unmap));
        Self {
            name: volume.name.clone(),
            bytes_read: counters.read.bytes,
            num_read_ops: counters.read.operations,
            bytes_written: counters.write.bytes,
            num_write_ops: counters.write.operations,
            bytes_unmapped: counters.unmap.bytes,
            num_unmap_ops: counters.unmap.operations,
            bytes_copied: 0,
            num_copy_ops: 0,
            read_latency_ticks: read.0,
            max_read_latency_ticks: read.1,
            min_read_latency_ticks: read.2,
            write_latency_ticks: write.0,
            max_write_latency_ticks: write.1,
            min_write_latency_ticks: write.2,
            unmap_latency_ticks: unmap.0,
            max_unmap_latency_ticks: unmap.1,
            min_unmap_latency_ticks: unmap.2,
            copy_latency_ticks: 0,
            max_copy_latency_ticks: 0,
            min_copy_latency_ticks: 0,
            io_error: Empty {},
        }
    }
}
