//! `keywright.v1.PkiAdmin`: authorities and what they may issue.

use keywright_proto::v1::{
    ApproveCeremonyRequest, ApproveCeremonyResponse, BlockKeyRequest, BlockKeyResponse,
    CommitCeremonyRequest, CommitCeremonyResponse, CreateAcmeKeyRequest, CreateAcmeKeyResponse,
    GetProfileRequest, GetProfileResponse, ImportIssuerRequest, ImportIssuerResponse,
    ListIssuersRequest, ListIssuersResponse, ListProfilesRequest, ListProfilesResponse,
    PlanCeremonyRequest, PlanCeremonyResponse, PutProfileRequest, PutProfileResponse,
    RetireProfileRequest, RetireProfileResponse, SetIssuerUsageRequest, SetIssuerUsageResponse,
    pki_admin_server::PkiAdmin,
};

use super::{convert, door::door};
use crate::ops::{acme, pki};

door! {
    /// The handlers.
    PkiAdminDoor: PkiAdmin {
        plan_ceremony(PlanCeremonyRequest) -> PlanCeremonyResponse = |app, call, m| {
            let planned = pki::plan_ceremony(app, call, m.text).await?;
            Ok(PlanCeremonyResponse { ceremony: Some(convert::planned(planned)) })
        };
        approve_ceremony(ApproveCeremonyRequest) -> ApproveCeremonyResponse = |app, call, m| {
            let planned = pki::approve_ceremony(app, call, convert::approve(m)?).await?;
            Ok(ApproveCeremonyResponse { ceremony: Some(convert::planned(planned)) })
        };
        commit_ceremony(CommitCeremonyRequest) -> CommitCeremonyResponse = |app, call, m| {
            let id = convert::issuer_id(&m.id)?;
            let committed = pki::commit_ceremony(app, call, id).await?;
            Ok(CommitCeremonyResponse {
                issuer: Some(convert::issuer(&committed.authority)),
                csr_der: committed.csr.unwrap_or_default().into(),
            })
        };
        import_issuer(ImportIssuerRequest) -> ImportIssuerResponse = |app, call, m| {
            let authority = pki::import_issuer(app, call, convert::import(m)?).await?;
            Ok(ImportIssuerResponse { issuer: Some(convert::issuer(&authority)) })
        };
        list_issuers(ListIssuersRequest) -> ListIssuersResponse = |app, call, _m| {
            let all = pki::list_issuers(app, call).await?;
            Ok(ListIssuersResponse { issuers: all.iter().map(|a| convert::listed(app, a)).collect() })
        };
        set_issuer_usage(SetIssuerUsageRequest) -> SetIssuerUsageResponse = |app, call, m| {
            let authority = pki::set_issuer_usage(app, call, convert::set_usage(&m)?).await?;
            Ok(SetIssuerUsageResponse { issuer: Some(convert::issuer(&authority)) })
        };
        put_profile(PutProfileRequest) -> PutProfileResponse = |app, call, m| {
            let profile = pki::put_profile(app, call, m.text).await?;
            Ok(PutProfileResponse { profile: Some(convert::profile(&profile)) })
        };
        get_profile(GetProfileRequest) -> GetProfileResponse = |app, call, m| {
            let (name, version) = convert::profile_name("profile", &m.profile)?;
            let profile = pki::get_profile(app, call, &name, version).await?;
            Ok(GetProfileResponse { profile: Some(convert::profile(&profile)) })
        };
        list_profiles(ListProfilesRequest) -> ListProfilesResponse = |app, call, _m| {
            let all = pki::list_profiles(app, call).await?;
            Ok(ListProfilesResponse { profiles: all.iter().map(|p| convert::profile(p)).collect() })
        };
        retire_profile(RetireProfileRequest) -> RetireProfileResponse = |app, call, m| {
            let name = convert::authority_name("name", &m.name)?;
            let profile = pki::retire_profile(app, call, &name).await?;
            Ok(RetireProfileResponse { profile: Some(convert::profile(&profile)) })
        };
        block_key(BlockKeyRequest) -> BlockKeyResponse = |app, call, m| {
            let spki = convert::spki_sha256("spki_sha256", &m.spki_sha256)?;
            let revoked = pki::block_key(app, call, spki, &convert::why(m.why)?).await?;
            Ok(BlockKeyResponse { revoked: revoked.into_iter().map(convert::named).collect() })
        };
        create_acme_key(CreateAcmeKeyRequest) -> CreateAcmeKeyResponse = |app, call, m| {
            let key = acme::create_acme_key(app, call, convert::acme_key(m)?).await?;
            Ok(CreateAcmeKeyResponse {
                kid: key.kid.to_string(),
                hmac_key: key.hmac_key.to_vec().into(),
            })
        };
    }
}
