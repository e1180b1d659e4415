//! A store that is not as the appliance left it: rolled back, or edited by hand.

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::*;

fn refused(daemon: &Path) -> String {
    let (status, log) = Daemon::try_start(daemon, Command::new(binary("keywrightd"))).unwrap_err();
    assert_eq!(status.code(), Some(6), "{log}");
    log
}

pub(super) fn edit(data: &Path, text: &str) {
    let url = format!("sqlite://{}", data.join("keywright.db").display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let changed = runtime.block_on(async {
        let mut store = SqliteConnection::connect(&url).await.unwrap();
        let changed = sqlx::query(AssertSqlSafe(text.to_owned()))
            .execute(&mut store)
            .await
            .unwrap();
        store.close().await.unwrap();
        changed
    });
    assert_eq!(changed.rows_affected(), 1, "{text}");
}

#[test]
fn a_store_that_was_rolled_back_is_refused_until_somebody_accepts_the_loss() {
    let (dir, daemon) = start();
    create(&daemon);
    let data = daemon.dir.clone();
    assert!(daemon.stop().success());
    let backup = dir.path().join("backup.db");
    fs::copy(data.join("keywright.db"), &backup).unwrap();

    let daemon = Daemon::start(&data);
    let _ = ok(daemon.cli().args(["key", "suspend", KEY]));
    assert!(daemon.stop().success());
    let newest = dir.path().join("newest.db");
    fs::copy(data.join("keywright.db"), &newest).unwrap();

    // The suspension would be gone.
    fs::copy(&backup, data.join("keywright.db")).unwrap();
    let log = refused(&data);
    assert!(log.contains("older than this token has seen it"), "{log}");
    assert!(log.contains("keywrightd recover-store"), "{log}");
    // Nor does it help to count on in it by hand.
    edit(&data, "UPDATE cluster SET epoch = epoch + 100");
    let log = refused(&data);
    assert!(log.contains("row of the epoch of the store"), "{log}");

    fs::copy(&newest, data.join("keywright.db")).unwrap();
    assert!(Daemon::start(&data).stop().success());

    fs::copy(&backup, data.join("keywright.db")).unwrap();
    let text = fails(&mut recover_store(&data, " "), 4);
    assert!(text.contains("--reason"), "{text}");
    let said = ok(&mut recover_store(&data, "disk lost, ticket 4711"));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains(" lost.") && !said.contains(": 0 lost"),
        "{said}"
    );
    let daemon = Daemon::start(&data);
    let key = ok(daemon.cli().args(["key", "show", KEY, "--output", "json"]));
    assert!(
        String::from_utf8(key.stdout)
            .unwrap()
            .contains("\"active\"")
    );
    assert!(daemon.stop().success());
    let records = fs::read_dir(data.join("audit")).unwrap();
    let records = records.map(|f| fs::read_to_string(f.unwrap().path()).unwrap_or_default());
    let records = records.collect::<String>();
    for expected in [
        "store_recovering",
        "disk lost, ticket 4711",
        "store_recovered",
    ] {
        assert!(records.contains(expected), "{expected}");
    }
}

#[test]
fn a_row_that_somebody_edited_is_named_and_nothing_is_served() {
    let (_dir, daemon) = start();
    create(&daemon);
    let _ = ok(daemon.cli().args(["key", "suspend", KEY]));
    let data = daemon.dir.clone();
    assert!(daemon.stop().success());
    edit(
        &data,
        "UPDATE key_versions SET state = 'active' WHERE state = 'suspended'",
    );
    let log = refused(&data);
    assert!(
        log.contains(&format!("the stored row of key {KEY} is not")),
        "{log}"
    );
    let said = String::from_utf8(ok(&mut recover_store(&data, "I did that")).stdout).unwrap();
    assert!(said.contains(&format!("  key {KEY}")), "{said}");
    let daemon = Daemon::start(&data);
    let _ = ok(daemon.cli().args(["key", "show", KEY]));
    assert!(daemon.stop().success());

    // Without seals, and without the key to them.
    edit(&data, "DELETE FROM facts WHERE name = 'rows_key'");
    let log = refused(&data);
    assert!(log.contains("rows of this store are not sealed"), "{log}");
    let config = fs::read_to_string(data.join("keywrightd.toml")).unwrap();
    let forgets = config.replacen("[hsm]", "[hsm]\nkeep_epoch = false", 1);
    fs::write(data.join("keywrightd.toml"), forgets).unwrap();
    let log = refused(&data);
    assert!(log.contains("rows of this store are not sealed"), "{log}");
    fs::write(data.join("keywrightd.toml"), config).unwrap();
    // With a key that the appliance did not wrap.
    edit(
        &data,
        "INSERT INTO facts (name, value) VALUES ('rows_key', zeroblob(60))",
    );
    let log = refused(&data);
    assert!(log.contains("is not one of this appliance"), "{log}");
}
