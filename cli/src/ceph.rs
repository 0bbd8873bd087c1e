//! How to reach a Ceph cluster, as flags that every tool has.

use std::path::PathBuf;

use lsvd_store::Environment;

/// Flags for pools of a Ceph cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Pools in a Ceph cluster")]
pub struct CephFlags {
    /// Ceph's configuration file [env: CEPH_CONF]
    #[arg(long, value_name = "FILE")]
    ceph_conf: Option<PathBuf>,

    /// Ceph's user, without `client.` [env: LSVD_CEPH_USER] [default: admin]
    #[arg(long, value_name = "NAME")]
    ceph_user: Option<String>,

    /// The user's keyring, instead of where the configuration says [env: LSVD_CEPH_KEYRING]
    #[arg(long, value_name = "FILE")]
    ceph_keyring: Option<PathBuf>,
}

impl CephFlags {
    /// The environment of this process, with the flags over it.
    #[must_use]
    pub fn environment(&self) -> Environment {
        let process = Environment::of_process();
        Environment {
            ceph_conf: self.ceph_conf.clone().or(process.ceph_conf),
            ceph_user: self.ceph_user.clone().or(process.ceph_user),
            ceph_keyring: self.ceph_keyring.clone().or(process.ceph_keyring),
            ..process
        }
    }
}
