//! What a job that has ended came to, signed by the appliance.

use std::time::Instant;

use keywright_hsm::{self as hsm, Curve, KeyRef, KeySpec, ObjectId};
use serde_json::json;
use tracing::{error, info};

use super::found;
use crate::{
    clock::rfc3339,
    error::{Error, Reason, Result},
    job::{Job, JobId},
    key::Key,
    ops::{App, Call},
    policy::act,
    signature::{Algorithm, Asked},
};

/// A signed account of a job.
#[derive(Debug)]
pub struct Report {
    /// JSON.
    pub text: Vec<u8>,
    /// ECDSA over P-256 with SHA-256 over these bytes, DER.
    pub signature: Vec<u8>,
    /// Whose signature it is.
    pub public_key: hsm::PublicKey,
}

/// The signed account of a job that has ended. The appliance's own key for signing is made
/// when it is needed first.
///
/// # Errors
/// [`Reason::JobState`] for a job that has not ended, permission, HSM, store.
pub async fn get_job_report(app: &App, call: &mut Call, id: JobId) -> Result<Report> {
    let (job, permit) = found::<act::GetJob>(app, call, id).await?;
    let Some(ended_ms) = job.ended_ms else {
        return Err(Error::new(
            Reason::JobState,
            "the job has not ended; it is reported when it has",
        ));
    };
    let text = text(&job, permit.key(), &call.caller.tenant_name, ended_ms)?;
    let signer = signer(app, call.deadline).await?;
    let asked = Asked {
        scheme: None,
        raw: None,
        salt: None,
        digests: false,
    };
    let algorithm = Algorithm::of(signer.spec, asked)?;
    let sign = hsm::Sign {
        key: signer.clone(),
        how: algorithm.how,
        input: algorithm.input(&text)?,
    };
    let signature = app.hsm.sign(vec![sign], call.deadline).await.pop();
    let signature = signature.ok_or_else(|| Error::internal("the HSM answered nothing"))??;
    let public_key = signer.public().cloned();
    Ok(Report {
        text,
        signature: algorithm.encode(signature)?,
        public_key: public_key.ok_or_else(|| Error::internal("a signer without public key"))?,
    })
}

/// The same job always gives the same bytes.
fn text(job: &Job, key: &Key, tenant: &str, ended_ms: i64) -> Result<Vec<u8>> {
    let census: Vec<_> = job
        .census
        .versions()
        .map(|(version, f)| json!({ "version": version.get(), "found": f.found, "left": f.left }))
        .collect();
    let report = json!({
        "document": "keywright job report 1",
        "job": job.id.to_string(),
        "tenant": tenant,
        "key": key.name.as_str(),
        "key_id": key.id.to_string(),
        "kind": job.kind.name(),
        "subject": job.subject,
        "dry_run": job.dry_run,
        "target_version": job.target.get(),
        "state": job.state.name(),
        "counts": job.counts,
        "census": census,
        "steps": job.steps,
        "created_by": job.created_by,
        "created": rfc3339(job.created_ms),
        "reported_by": job.worker,
        "ended": rfc3339(ended_ms),
    });
    let mut text =
        serde_json::to_vec_pretty(&report).map_err(|e| Error::internal(e.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

const LABEL: &str = "keywright/reports";

/// The appliance's own key for signing, made now if there is none.
async fn signer(app: &App, deadline: Instant) -> Result<KeyRef> {
    if let Some(key) = app.store.signer().await? {
        return Ok(key);
    }
    let spec = KeySpec::Ec(Curve::P256);
    let object = ObjectId::random()?;
    let new = app
        .hsm
        .generate(object, spec, LABEL.into(), deadline)
        .await?;
    let stored = app.store.set_signer(&new.key).await?;
    if stored.object == object {
        info!(%object, "a key that signs reports was made");
    } else if let Err(e) = app.hsm.destroy(object, spec, deadline).await {
        error!(%object, error = %e, "another request made the key that signs reports first; this one is left on the token and belongs to nothing");
    }
    Ok(stored)
}
