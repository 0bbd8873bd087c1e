//! What a recovery found, against the model: at least what must be there, and exactly one state of
//! the image.

use std::sync::Arc;
use std::time::Duration;

use lsvd_engine::{ErrorKind, Volume};
use tokio::time::sleep;

use super::{End, Generation, Opened};
use crate::gateway::Gateway;
use crate::model::{Model, Stamp, stamp_of};

impl Generation {
    /// Checks what was recovered and makes it the new beginning. `zombie` is the gateway that was
    /// taken over.
    pub(super) async fn recovered(
        &mut self,
        opened: Opened,
        zombie: Option<&Arc<Gateway>>,
    ) -> Result<Arc<Gateway>, End> {
        let Opened { volume, cache, connection } = opened;
        let context = Arc::clone(&self.context);
        let count = volume.status().applied_write.0 as usize;
        let mut model = match zombie {
            None => self.heritage.model.clone(),
            Some(zombie) => {
                let mut model = zombie.model.lock();
                self.heritage.required = model.stored();
                model.take_over(count);
                model.clone()
            }
        };
        self.note_recovery(&volume, count, &model);
        let required = self.heritage.required.max(model.stored());
        if count < required || count > model.operations() {
            context.violation(format_args!(
                "recovery found {count} operations of {}; at least {required} must be there \
                 (flushed {}, in the store {}); {:?}",
                model.operations(),
                model.flushed(),
                model.stored(),
                volume.recovered()
            ));
            return Err(End::Over);
        }
        if self.heritage.log_damaged {
            context.count(|coverage| coverage.log_damage += 1);
        }
        self.recovered_size(&volume, &mut model)?;
        if let Some(zombie) = zombie {
            zombie.model.lock().recovered_size(model.sectors());
        }
        let full = model.clone();
        model.recovered(count);
        self.heritage.model = model.clone();
        self.heritage.required = count;
        self.heritage.log_lost = false;
        self.heritage.log_damaged = false;
        self.heritage.checkpoint_damaged = false;
        let machine = self.heritage.machine;
        let gateway = Gateway::new(&context, machine, volume, cache, connection, model);
        for _ in 0..2 {
            self.whole_image_is(&gateway, count, &full).await?;
        }
        Ok(gateway)
    }

    /// Checks the size that was found and makes it the image's.
    fn recovered_size(&self, volume: &Volume, model: &mut Model) -> Result<(), End> {
        let sectors = (volume.size_bytes() / 512) as u32;
        if !model.may_have_size(sectors) {
            self.context.violation(format_args!(
                "recovery found {sectors} sectors; the image has {} or what was asked for since",
                model.sectors()
            ));
            return Err(End::Over);
        }
        let (is_open, is_new) = (model.is_size_open(), sectors != model.sectors());
        self.context.count(|coverage| {
            coverage.lost_resizes += u64::from(is_open && !is_new);
            coverage.landed_resizes += u64::from(is_new);
        });
        model.recovered_size(sectors);
        Ok(())
    }

    fn note_recovery(&self, volume: &Volume, count: usize, model: &Model) {
        let found = volume.recovered();
        let fell_back = self.heritage.checkpoint_damaged;
        self.context.count(|coverage| {
            coverage.opens += 1;
            coverage.shorter_recoveries += u64::from(count < model.applied());
            coverage.log_replays += u64::from(found.records > 0);
            coverage.replayed_records += found.records;
            coverage.object_replays += u64::from(found.objects > 0 && found.checkpoint.is_some());
            coverage.leftovers += found.leftovers;
            coverage.checkpoint_fallbacks += u64::from(fell_back);
            coverage.stranded_logs += u64::from(found.set_aside.is_some());
        });
    }

    /// Reads the whole image in random pieces and compares it with the state after `count`
    /// operations.
    async fn whole_image_is(
        &mut self,
        gateway: &Gateway,
        count: usize,
        full: &Model,
    ) -> Result<(), End> {
        let expected = full.contents_at(count);
        let sectors = full.sectors();
        let mut found: Vec<Option<Stamp>> = Vec::with_capacity(expected.len());
        let unit = self.context.plan.unit();
        let mut at = 0;
        while at < sectors {
            let len = (self.random.u32(1..=1024) * unit).min(sectors - at);
            match self.read_whatever_it_takes(gateway, at, len).await? {
                Some(data) => found.extend(
                    data.chunks(512).zip(at..).map(|(bytes, sector)| stamp_of(bytes, sector)),
                ),
                // Reported as damaged, which is right if it is.
                None => {
                    found.extend(expected[at as usize..][..len as usize].iter().map(|s| Some(*s)))
                }
            }
            at += len;
        }
        let wrong =
            found.iter().zip(&expected).position(|(found, expected)| *found != Some(*expected));
        let Some(sector) = wrong else { return Ok(()) };
        let known: Option<Vec<Stamp>> = found.iter().copied().collect();
        let like = known.map(|found| full.states_like(&found));
        let different = found.iter().zip(&expected).filter(|(f, e)| **f != Some(**e)).count();
        self.context.violation(format_args!(
            "the recovered image is not the state after {count} operations of {}: {different} \
             sectors differ, the first is {sector}, which holds {:?} instead of {:?}; it is the \
             state after {like:?}; {:?}",
            full.operations(),
            found[sector],
            expected[sector],
            gateway.volume.recovered()
        ));
        Err(End::Over)
    }

    /// Reads; tries again while the store is away. `None` is damage that was reported.
    async fn read_whatever_it_takes(
        &mut self,
        gateway: &Gateway,
        start: u32,
        len: u32,
    ) -> Result<Option<bytes::Bytes>, End> {
        for attempt in 0..40 {
            if attempt == 10 {
                self.context.end_faults();
            }
            let answer = gateway.volume.read(u64::from(start) * 512, u64::from(len) * 512).await;
            let error = match answer {
                Ok(data) => return Ok(Some(data)),
                Err(error) => error,
            };
            if !gateway.refused("read", &error) {
                return Err(End::Over);
            }
            if error.kind() == ErrorKind::Corrupt {
                return Ok(None);
            }
            sleep(Duration::from_millis(500)).await;
        }
        if self.context.disk_failed(gateway.machine) {
            // The volume itself failed meanwhile. The next recovery has to cope.
            self.context.count(|coverage| coverage.failed_volumes += 1);
            return Err(self.crash());
        }
        self.context.violation(format_args!("a read does not succeed although no fault is left"));
        Err(End::Over)
    }
}
