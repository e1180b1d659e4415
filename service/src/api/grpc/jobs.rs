//! `keywright.v1.Jobs`: convert, operation, convert; and the stream of who watches.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use keywright_proto::v1::{
    ChangeJobRequest, ChangeJobResponse, CheckpointJobRequest, CheckpointJobResponse,
    CreateJobRequest, CreateJobResponse, GetJobReportRequest, GetJobReportResponse, GetJobRequest,
    GetJobResponse, LeaseJobRequest, LeaseJobResponse, ListJobsRequest, ListJobsResponse,
    WatchJobRequest, WatchJobResponse, jobs_server::Jobs,
};
use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use tonic::{Request, Response, Status};

use super::{convert, door::door, guard::begin, status::status};
use crate::ops::{
    App, accounted,
    job::{self, Named},
};

door! {
    /// The handlers.
    JobsDoor: Jobs {
        create_job(CreateJobRequest) -> CreateJobResponse = |app, call, m| {
            let named = job::create_job(app, call, convert::create_job(m)?).await?;
            Ok(CreateJobResponse { job: Some(convert::job(&named, call.now_ms)) })
        };
        get_job(GetJobRequest) -> GetJobResponse = |app, call, m| {
            let named = job::get_job(app, call, convert::job_id(&m.id)?).await?;
            Ok(GetJobResponse { job: Some(convert::job(&named, call.now_ms)) })
        };
        list_jobs(ListJobsRequest) -> ListJobsResponse = |app, call, m| {
            let page = job::list_jobs(app, call, convert::list_jobs(&m)?).await?;
            Ok(convert::job_page(page, call.now_ms))
        };
        change_job(ChangeJobRequest) -> ChangeJobResponse = |app, call, m| {
            let (id, change) = (convert::job_id(&m.id)?, convert::job_change(m.change)?);
            let named = job::change_job(app, call, id, change).await?;
            Ok(ChangeJobResponse { job: Some(convert::job(&named, call.now_ms)) })
        };
        lease_job(LeaseJobRequest) -> LeaseJobResponse = |app, call, m| {
            let leased = job::lease_job(app, call, convert::lease_job(m)?).await?;
            Ok(LeaseJobResponse {
                job: Some(convert::job(&leased.named, call.now_ms)),
                lease: leased.lease.to_string(),
                cursor: leased.named.job.cursor.into(),
                lease_ms: app.limits.job_lease_ms,
            })
        };
        checkpoint_job(CheckpointJobRequest) -> CheckpointJobResponse = |app, call, m| {
            let named = job::checkpoint_job(app, call, convert::checkpoint(m)?).await?;
            Ok(CheckpointJobResponse {
                job: Some(convert::job(&named, call.now_ms)),
                lease_ms: app.limits.job_lease_ms,
            })
        };
        get_job_report(GetJobReportRequest) -> GetJobReportResponse = |app, call, m| {
            let report = job::get_job_report(app, call, convert::job_id(&m.id)?).await?;
            Ok(convert::report(report))
        };
    }
    also {
        type WatchJobStream = Looks;

        /// The first look is a request like any other; the later ones are what it asked for.
        async fn watch_job(
            &self,
            request: Request<WatchJobRequest>,
        ) -> Result<Response<Looks>, Status> {
            let (call, request) = begin(request)?;
            let id = call.entry.request_id.clone();
            let watched = accounted(&self.app, call, async |app, call| {
                job::watch_job(app, call, convert::job_id(&request.id)?).await
            });
            let (named, place) = watched.await.map_err(|e| status(&e, &id))?;
            Ok(Response::new(looks(Arc::clone(&self.app), named, place, id)))
        }
    }
}

/// What who watches is sent.
type Looks = Pin<Box<dyn Stream<Item = Result<WatchJobResponse, Status>> + Send>>;

/// Pause between two looks at the store.
const PAUSE: Duration = Duration::from_millis(500);

/// The job, and again whenever it has changed, until it has ended.
fn looks(app: Arc<App>, first: Named, place: OwnedSemaphorePermit, id: String) -> Looks {
    /// What was sent last; `None`: nothing yet.
    struct Watch {
        app: Arc<App>,
        named: Named,
        sent: Option<i32>,
        id: String,
        _place: OwnedSemaphorePermit,
    }
    let watch = Watch {
        app,
        named: first,
        sent: None,
        id,
        _place: place,
    };
    Box::pin(stream::try_unfold(Some(watch), async |watch| {
        let Some(mut watch) = watch else {
            return Ok(None);
        };
        loop {
            let job = convert::job(&watch.named, watch.app.clock.now_ms());
            // Also when its time has come, which changes no row.
            if watch.sent != Some(job.state) {
                let ended = !watch.named.job.open();
                watch.sent = Some(job.state);
                let response = WatchJobResponse { job: Some(job) };
                return Ok(Some((response, (!ended).then_some(watch))));
            }
            sleep(PAUSE).await;
            let again = job::look_again(&watch.app, &watch.named.job).await;
            let again = again.map_err(|e| status(&e, &watch.id))?;
            if again.revision != watch.named.job.revision {
                watch.sent = None;
            }
            watch.named.job = again;
        }
    }))
}
