//! Get Features and Set Features.

use super::Admin;
use crate::session::Answer;
use crate::wire::command::{FeatureSelect, GetFeatures, SetFeatures};
use crate::wire::features::{Feature, FeatureCapabilities, FeatureId};
use crate::wire::{AsyncEvent, AsyncEventMask, Status};

/// 70 degrees Celsius: a threshold that 0 kelvins, which SMART reports, never reaches.
const TEMPERATURE_THRESHOLD: u16 = 343;

impl Admin<'_> {
    /// Asynchronous events that the controller can report (OAES).
    pub(super) fn supported_events(&self) -> AsyncEventMask {
        let subsystem = &self.member.subsystem;
        match subsystem.is_discovery {
            true => AsyncEvent::DiscoveryChanged.mask(),
            false if subsystem.ana_reporting => {
                AsyncEvent::NamespaceChanged.mask().union(AsyncEvent::AnaChanged.mask())
            }
            false => AsyncEvent::NamespaceChanged.mask(),
        }
    }

    pub(super) fn get_features(&self, get: &GetFeatures) -> Result<Answer, Status> {
        let controller = &self.member.controller;
        if get.feature == FeatureId::HostIdentifier && get.select != FeatureSelect::Capabilities {
            return Ok(Answer::data(controller.host_id.to_vec()));
        }
        let current = self.value(get.feature, get.select == FeatureSelect::Current)?;
        let dword = match get.select {
            FeatureSelect::Current | FeatureSelect::Default => current.to_dword(),
            // Nothing is saved, so what is saved is the default.
            FeatureSelect::Saved => self.value(get.feature, false)?.to_dword(),
            FeatureSelect::Capabilities => {
                let changeable = is_changeable(get.feature);
                FeatureCapabilities { changeable, ..FeatureCapabilities::default() }.to_dword()
            }
        };
        Ok(Answer::done(u64::from(dword)))
    }

    /// The value in force, or the one that a new controller has.
    fn value(&self, id: FeatureId, is_current: bool) -> Result<Feature, Status> {
        let controller = &self.member.controller;
        let has_io = !self.member.subsystem.is_discovery;
        Ok(match id {
            FeatureId::AsyncEvents if is_current => {
                Feature::AsyncEvents(controller.enabled_events())
            }
            FeatureId::AsyncEvents => Feature::AsyncEvents(AsyncEventMask::default()),
            FeatureId::KeepAliveTimer if is_current => {
                Feature::KeepAliveTimer { ms: controller.keep_alive_ms() }
            }
            FeatureId::KeepAliveTimer => Feature::KeepAliveTimer { ms: 0 },
            FeatureId::NumberOfQueues if has_io => {
                let settled =
                    if is_current { controller.io_queues() } else { self.target.options.io_queues };
                let queues = u32::from(settled.min(self.target.options.io_queues));
                Feature::NumberOfQueues { submission: queues, completion: queues }
            }
            FeatureId::Arbitration if has_io => Feature::Arbitration(0),
            FeatureId::PowerManagement => Feature::PowerManagement { state: 0, workload: 0 },
            FeatureId::TemperatureThreshold => Feature::TemperatureThreshold {
                kelvins: TEMPERATURE_THRESHOLD,
                sensor: 0,
                is_under: false,
            },
            FeatureId::ErrorRecovery if has_io => {
                Feature::ErrorRecovery { limit_100ms: 0, deallocated_error: false }
            }
            FeatureId::VolatileWriteCache if has_io => {
                Feature::VolatileWriteCache { enabled: true }
            }
            FeatureId::WriteAtomicity if has_io => {
                Feature::WriteAtomicity { disable_normal: false }
            }
            FeatureId::HostIdentifier => Feature::HostIdentifier,
            _ => return Err(Status::INVALID_FIELD.dnr()),
        })
    }

    /// The result is DW0 of the completion.
    pub(super) fn set_features(&self, set: &SetFeatures) -> Result<u32, Status> {
        if set.save {
            return Err(Status::FEATURE_NOT_SAVEABLE.dnr());
        }
        let controller = &self.member.controller;
        match set.feature {
            Feature::AsyncEvents(mask) => {
                // Hosts enable all that they know; what is not offered never happens here.
                let known = self.supported_events().union(AsyncEventMask::HEALTH);
                controller.enable_events(mask.intersection(known));
                Ok(mask.0)
            }
            Feature::KeepAliveTimer { ms } => {
                controller.set_keep_alive_ms(ms);
                Ok(0)
            }
            Feature::NumberOfQueues { submission, completion }
                if !self.member.subsystem.is_discovery =>
            {
                let most = u32::from(self.target.options.io_queues);
                let settled = submission.min(completion).min(most);
                controller
                    .set_io_queues(u16::try_from(settled).expect("no more than io_queues"))?;
                Ok(Feature::NumberOfQueues { submission: settled, completion: settled }.to_dword())
            }
            feature => {
                // What cannot be changed may still be set to what it is.
                let current = self.value(feature.id(), true)?;
                match feature == current && current != Feature::HostIdentifier {
                    true => Ok(0),
                    false => Err(Status::FEATURE_NOT_CHANGEABLE.dnr()),
                }
            }
        }
    }
}

fn is_changeable(id: FeatureId) -> bool {
    matches!(id, FeatureId::AsyncEvents | FeatureId::KeepAliveTimer | FeatureId::NumberOfQueues)
}
