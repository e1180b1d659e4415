//! The driver against a server and a place in memory, killed and failed at every moment.

use std::{
    sync::{Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Event, Order, Stop,
    fake::{Blow, World, header},
    run,
    sort::version,
};
use crate::{
    Failure, FailureKind,
    proto::{Job, JobState},
};

fn order() -> Order {
    Order {
        batch: 3,
        workers: 2,
        beat: Duration::ZERO,
        pause: Duration::from_millis(1),
        patience: Duration::from_millis(200),
        ..Order::new("cards")
    }
}

async fn work(world: &World, order: &Order) -> Result<Job, Failure> {
    Box::pin(run(world, world, order, &|_| (), &Stop::never())).await
}

/// All notes of a run.
async fn told(world: &World, order: &Order) -> (Result<Job, Failure>, Vec<String>) {
    let notes = Mutex::new(Vec::new());
    let tell = |event: Event<'_>| {
        if let Event::Note(text) | Event::Waiting(text) = event {
            notes.lock().unwrap().push(text);
        }
    };
    let done = Box::pin(run(world, world, order, &tell, &Stop::never())).await;
    (done, notes.into_inner().unwrap())
}

fn old(world: &World) -> usize {
    let rows = world.rows.lock().unwrap();
    let versions = rows.values().flatten().filter_map(|h| version(h));
    versions.filter(|v| *v < 3).count()
}

/// Each step once, in order, and each entry counted once.
fn all_is_well(world: &World, rows: u64, at: u64) {
    let job = world.job_now();
    assert_eq!(job.state(), JobState::Completed, "{at}");
    assert_eq!(old(world), 0, "{at}");
    let counts = job.counts.unwrap();
    assert_eq!(counts.seen, rows, "{at}: {counts:?}");
    assert_eq!(counts.moved + counts.current, rows, "{at}: {counts:?}");
    let steps = world.steps.lock().unwrap();
    let numbers: Vec<u64> = steps.iter().map(|(n, _)| *n).collect();
    let wanted: Vec<u64> = (1..=steps.len() as u64).collect();
    assert_eq!(numbers, wanted, "{at}");
    let place = |cursor: &[u8]| -> Option<u32> {
        let after = super::cursor::decode("memory by row", cursor).unwrap();
        after.map(|a| a.parse().unwrap())
    };
    let mut places: Vec<Option<u32>> = steps.iter().map(|(_, c)| place(c)).collect();
    // The last step has no next one.
    places.pop();
    assert!(places.is_sorted(), "{at}: {places:?}");
}

#[tokio::test]
async fn killed_at_any_moment_nothing_is_lost_and_each_step_counts_once() {
    for at in 0.. {
        let world = World::new(20);
        *world.at.lock().unwrap() = Some((at, Blow::Kill));
        let order = order();
        let killed = tokio::select! {
            done = work(&world, &order) => { done.unwrap(); false }
            () = world.killed.notified() => true,
        };
        if !killed {
            assert!(at > 40, "only {at} moments");
            all_is_well(&world, 20, at);
            return;
        }
        // Its lease runs out.
        world.lease.lock().unwrap().clear();
        let ended = world.jobs.lock().unwrap().last().map(|j| j.ended_unix_ms);
        if ended == Some(1) {
            // Killed after its last word: all was well, and the next job finds it so.
            all_is_well(&world, 20, at);
            let counts = work(&world, &order).await.unwrap().counts.unwrap();
            assert_eq!(counts.current, 20, "{at}");
            continue;
        }
        let job = work(&world, &order).await.unwrap();
        assert_eq!(job.id, format!("{:032x}", 0), "{at}: the same job goes on");
        all_is_well(&world, 20, at);
    }
}

#[tokio::test]
async fn a_call_that_fails_once_anywhere_is_made_up_for() {
    for at in 0.. {
        let world = World::new(20);
        *world.at.lock().unwrap() = Some((at, Blow::Fail));
        work(&world, &order()).await.unwrap();
        all_is_well(&world, 20, at);
        if world.moment.load(Ordering::Relaxed) < at {
            return;
        }
    }
}

#[tokio::test]
async fn values_of_all_sorts_are_counted_and_left_alone() {
    let mut world = World::new(6);
    world.bad = Some(5);
    {
        let mut rows = world.rows.lock().unwrap();
        rows.insert(0, None);
        rows.insert(1, Some("vault:v1:abc".into()));
        let mut other = header(2, 1).to_vec();
        other[4] = 9;
        rows.insert(2, Some(other.into()));
        rows.insert(3, Some(header(3, 3)));
    }
    let (job, notes) = told(&world, &order()).await;
    let c = job.unwrap().counts.unwrap();
    let counts = [c.seen, c.moved, c.current, c.empty, c.foreign, c.other_key];
    assert_eq!((counts, c.left), ([6, 1, 1, 1, 1, 1], 1));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("5: version 1 is suspended"),
        "{notes:?}"
    );
    assert_eq!(old(&world), 2, "the other key's and the bad one");
}

#[tokio::test]
async fn a_page_of_which_nothing_can_be_moved_does_not_end_the_work() {
    let mut world = World::new(6);
    world.bad = Some(2);
    let order = Order {
        batch: 1,
        ..order()
    };
    let c = work(&world, &order).await.unwrap().counts.unwrap();
    assert_eq!((c.seen, c.moved, c.left), (6, 5, 1));
}

#[tokio::test]
async fn what_changes_between_read_and_write_is_not_overwritten() {
    let world = World::new(6);
    let (written, current) = (header(77, 2), header(88, 3));
    *world.meddle.lock().unwrap() = vec![
        (1, Some(written.clone())),
        (2, Some(current.clone())),
        (3, None),
    ];
    let c = work(&world, &order()).await.unwrap().counts.unwrap();
    assert_eq!((c.seen, c.moved, c.current, c.empty), (6, 4, 1, 1));
    let rows = world.rows.lock().unwrap();
    let row = |i| rows.get(&i).unwrap().clone();
    assert_eq!(row(1).unwrap()[20..24], written[20..24], "the new value");
    assert_eq!(row(2), Some(current));
    assert_eq!(row(3), None);
}

#[tokio::test]
async fn a_dry_run_moves_nothing_and_counts_what_is_left() {
    let world = World::new(5);
    let order = Order {
        dry_run: true,
        ..order()
    };
    let c = work(&world, &order).await.unwrap().counts.unwrap();
    assert_eq!((c.seen, c.left, c.moved), (5, 5, 0));
    assert_eq!(old(&world), 5);
}

#[tokio::test]
async fn paused_cancelled_and_taken_over_jobs_are_stopped_with_a_word() {
    for (state, word) in [
        (JobState::Paused, "is paused; resume it"),
        (JobState::Cancelled, "was cancelled"),
    ] {
        let world = World::new(20);
        *world.change.lock().unwrap() = Some(state);
        let failure = work(&world, &order()).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::State);
        assert!(failure.to_string().contains(word), "{failure}");
        assert_eq!(world.steps.lock().unwrap().len(), 1);
    }
    let world = World::new(20);
    let order = order();
    let tell = |event: Event<'_>| {
        if let Event::Progress(..) = event {
            *world.lease.lock().unwrap() = "somebody else's".into();
        }
    };
    let taken = Box::pin(run(&world, &world, &order, &tell, &Stop::never())).await;
    let failure = taken.unwrap_err();
    assert!(failure.to_string().contains("another worker took job"));
    assert!(world.steps.lock().unwrap().is_empty());
}

#[tokio::test]
async fn asked_to_stop_it_reports_what_is_done_and_goes_on_there() {
    let world = World::new(30);
    let (ask, asked) = watch::channel(false);
    let tell = |event: Event<'_>| {
        if let Event::Progress(..) = event {
            ask.send_replace(true);
        }
    };
    // No step would be due for long.
    let order = Order {
        beat: Duration::from_secs(60),
        ..order()
    };
    let stopped = Box::pin(run(&world, &world, &order, &tell, &Stop::when(asked))).await;
    let failure = stopped.unwrap_err();
    assert_eq!(failure.exit_code(), 130);
    assert!(failure.to_string().contains("the same command goes on"));
    let seen = world.job_now().counts.unwrap().seen;
    assert!((3..30).contains(&seen), "{seen}");
    assert_eq!(30 - old(&world), seen as usize, "nothing moved untold");
    world.lease.lock().unwrap().clear();
    work(&world, &order).await.unwrap();
    all_is_well(&world, 30, 0);
}

#[tokio::test]
async fn the_rate_of_the_job_is_kept() {
    let world = World::new(20);
    let order = Order {
        rate: 100,
        batch: 5,
        ..order()
    };
    let begun = Instant::now();
    work(&world, &order).await.unwrap();
    // 20 at 100 a second; the last five need no wait behind them.
    assert!(begun.elapsed() >= Duration::from_millis(140));
}

#[tokio::test]
async fn a_node_that_is_behind_is_asked_again() {
    let world = World::new(3);
    world.behind.store(2, Ordering::Relaxed);
    let (job, notes) = told(&world, &order()).await;
    job.unwrap();
    assert_eq!(old(&world), 0);
    assert!(notes.iter().all(|n| n.contains("does not know version 3")));
    assert_eq!(notes.len(), 2);
    world.behind.store(99, Ordering::Relaxed);
    world.rows.lock().unwrap().insert(0, Some(header(0, 1)));
    world.lease.lock().unwrap().clear();
    let failure = work(&world, &order()).await.unwrap_err();
    assert!(
        failure.to_string().contains("below 3 of cards"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_foreign_cursor_another_mode_and_a_held_lease_are_refused() {
    let world = World::new(9);
    *world.change.lock().unwrap() = Some(JobState::Paused);
    work(&world, &order()).await.unwrap_err();
    world.jobs.lock().unwrap()[0].state = JobState::Open.into();
    world.lease.lock().unwrap().clear();
    let dry = Order {
        dry_run: true,
        ..order()
    };
    let failure = work(&world, &dry).await.unwrap_err();
    assert!(
        failure.to_string().contains("is open and moves"),
        "{failure}"
    );
    *world.cursor.lock().unwrap() = "7".into();
    let failure = work(&world, &order()).await.unwrap_err();
    assert_eq!(failure.reason(), Some("JOB_CURSOR"));
    // The lease is held now; whoever waits is told, until it is free.
    *world.cursor.lock().unwrap() = bytes::Bytes::new();
    let free = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.lease.lock().unwrap().clear();
    };
    let order = order();
    let ((done, notes), ()) = tokio::join!(told(&world, &order), free);
    done.unwrap();
    assert!(notes.iter().any(|n| n.contains("--take-over")), "{notes:?}");
}

#[tokio::test]
async fn a_place_that_cannot_go_on_is_reported_once_at_its_end() {
    let world = World::new(20);
    world.whole.store(true, Ordering::Relaxed);
    work(&world, &order()).await.unwrap();
    assert_eq!(world.steps.lock().unwrap().len(), 1);
    all_is_well(&world, 20, 0);
}

#[tokio::test]
async fn a_version_that_the_key_does_not_have_is_damage() {
    let world = World::new(5);
    world.rows.lock().unwrap().insert(2, Some(header(2, 99)));
    let (done, notes) = told(&world, &order()).await;
    let job = done.unwrap();
    let counts = job.counts.unwrap();
    assert_eq!((counts.left, counts.moved), (1, 4), "{counts:?}");
    assert!(job.census.iter().all(|c| c.version != 99), "{job:?}");
    assert!(notes.iter().any(|n| n.contains("version 99")), "{notes:?}");
    // One that the key got since is none.
    world.lease.lock().unwrap().clear();
    world.rows.lock().unwrap().insert(2, Some(header(2, 4)));
    world.primary.store(4, Ordering::Relaxed);
    let counts = work(&world, &order()).await.unwrap().counts.unwrap();
    assert_eq!(counts.left, 0, "{counts:?}");
}
