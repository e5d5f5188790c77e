//! Refusals as gRPC clients see them.

use mesh_store::Rejection;
use mesh_types::LookupError;
use tonic::{Code, Status};

/// The status for a refused command: the code says what kind of thing went wrong, the message names it.
pub(crate) fn rejected(rejection: &Rejection) -> Status {
    use Rejection as R;
    let code = match rejection {
        R::UnknownNode(_)
        | R::UnknownNetwork(_)
        | R::UnknownService(_)
        | R::NotPublished { .. }
        | R::NoSuchAlias { .. } => Code::NotFound,
        R::IdTaken { .. }
        | R::NameTaken { .. }
        | R::NodeNameTaken { .. }
        | R::PortTaken { .. }
        | R::PortPublished { .. }
        | R::DataPathAddressTaken { .. }
        | R::AdvertiseAddressTaken { .. }
        | R::ServiceOn { .. }
        | R::AddressTaken { .. } => Code::AlreadyExists,
        R::Changed { .. } => Code::Aborted,
        R::NotInitialized
        | R::AlreadyInitialized
        | R::LastManager(_)
        | R::CaChanges
        | R::GossipKeysChange
        | R::TooManyManagers
        | R::IngressNeeded(_)
        | R::IngressInUse { .. }
        | R::ServiceNotOn { .. }
        | R::LastNetwork(_)
        | R::NetworkInUse { .. }
        | R::DnsRrPorts(_)
        | R::DnsRrBalancing(..) => Code::FailedPrecondition,
        R::AddressesExhausted { .. } | R::SubnetsExhausted(_) | R::VnisExhausted | R::PortsExhausted(_) => {
            Code::ResourceExhausted
        }
        R::Subnet(_)
        | R::DataPathAddress(_)
        | R::AdvertiseAddress(_)
        | R::PoolsOfOneFamily { .. }
        | R::SubnetsOfOneFamily { .. }
        | R::IpRange { .. }
        | R::IpRangeFamily { .. }
        | R::IpRangesOfOneFamily { .. }
        | R::NoSuchFamily { .. }
        | R::Mtu { .. }
        | R::CertValidity { .. }
        | R::AuxAddress { .. }
        | R::Mtu6 { .. }
        | R::NetworkTwice { .. }
        | R::PortTwice { .. }
        | R::PortReserved { .. }
        | R::LeaseGrace(_)
        | R::GossipRotation { .. }
        | R::TargetPort
        | R::SctpPorts { .. }
        | R::DirectHost(_)
        | R::Health(_)
        | R::AddressOutside { .. } => Code::InvalidArgument,
    };
    Status::new(code, rejection.to_string())
}

/// The status for a reference that names no single object.
pub(crate) fn unresolved(error: &LookupError) -> Status {
    match error {
        LookupError::Unknown { .. } => Status::not_found(error.to_string()),
        LookupError::Ambiguous { .. } => Status::invalid_argument(error.to_string()),
    }
}

/// The status for a field that holds no valid value.
pub(crate) fn invalid(field: &str, reason: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {reason}"))
}
