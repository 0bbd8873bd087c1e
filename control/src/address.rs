//! Addresses of the transport as clients write them, and as they read them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The only transport there is, as clients read it. They write it in any case.
pub(crate) const TCP: &str = "TCP";

/// A transport address as written. Unknown members are left to the decoder around it.
#[derive(Deserialize)]
pub(crate) struct WrittenAddress {
    trtype: String,
    adrfam: Option<String>,
    traddr: String,
    trsvcid: Option<String>,
}

impl WrittenAddress {
    /// The address; none if it is not one of ours.
    pub(crate) fn resolve(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.traddr.parse().ok()?;
        let port: u16 = self.trsvcid.as_ref()?.parse().ok()?;
        let family_fits =
            self.adrfam.as_ref().is_none_or(|family| family.eq_ignore_ascii_case(family_name(ip)));
        (is_tcp(&self.trtype) && family_fits).then_some(SocketAddr::new(ip, port))
    }
}

pub(crate) fn is_tcp(trtype: &str) -> bool {
    trtype.eq_ignore_ascii_case(TCP)
}

fn family_name(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A transport address as read.
#[derive(Serialize)]
pub(crate) struct Address {
    trtype: &'static str,
    adrfam: &'static str,
    traddr: String,
    trsvcid: String,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            trtype: TCP,
            adrfam: family_name(address.ip()),
            traddr: address.ip().to_string(),
            trsvcid: address.port().to_string(),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn resolve(text: &str) -> Option<SocketAddr> {
        serde_json::from_str::<WrittenAddress>(text).unwrap().resolve()
    }

    #[test]
    fn address_is_tcp_in_any_case_and_numeric() {
        let loopback = "127.0.0.1:4420".parse().ok();
        let base = r#"{"trtype":"TCP","traddr":"127.0.0.1","trsvcid":"4420"}"#;
        assert_eq!(resolve(base), loopback);
        assert_eq!(resolve(&base.replace("TCP", "tCp")), loopback);
        assert_eq!(resolve(&base.replace("TCP", "RDMA")), None);
        assert_eq!(resolve(&base.replace("127.0.0.1", "::1")), "[::1]:4420".parse().ok());
        assert_eq!(resolve(&base.replace("127.0.0.1", "localhost")), None);
        assert_eq!(resolve(&base.replace("4420", "70000")), None);
        assert_eq!(resolve(r#"{"trtype":"tcp","traddr":"127.0.0.1"}"#), None);
        let family =
            |family| base.replace("{\"trtype", &format!("{{\"adrfam\":\"{family}\",\"trtype"));
        assert_eq!(resolve(&family("ipv4")), loopback);
        assert_eq!(resolve(&family("IPv6")), None);
    }
}
