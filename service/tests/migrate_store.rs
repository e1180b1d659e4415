//! `keywrightd migrate-store` and what is refused around a database, as an operator sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "this is a test"
)]

#[path = "common/postgres.rs"]
mod postgres;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command};

use keywright_service::{
    app::DataLock,
    key::TenantId,
    store::{PostgresStore, PostgresUrl, SqliteStore, Store, Tenant},
};
use postgres::{GUARDED, Postgres};

const CONFIG: &str = r#"
data_dir = "data"
policies_dir = "policies"
[listen]
grpc = "127.0.0.1:0"
admin = "127.0.0.1:0"
[tls]
certificate = "server.pem"
key = "server.key"
[[tenants]]
name = "dev"
trust_domain = "dev.keywright"
client_ca = "ca.pem"
[hsm]
module = "/nowhere.so"
token_label = "t1"
pin_file = "pin"
"#;

fn run(dir: &Path, args: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_keywrightd"))
        .args(args)
        .arg("--config")
        .arg(dir.join("keywrightd.toml"))
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_stopped_daemon_s_store_moves_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(dir.path().join("keywrightd.toml"), CONFIG).unwrap();
    let url = Postgres::shared().create_database("moves_once");
    let args = ["migrate-store", "--to-postgres", &url];

    let (code, said) = run(dir.path(), &args);
    assert!(code == 6 && said.contains("no embedded store"), "{said}");
    let path = data.join("keywright.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let tenant = Tenant {
        id: TenantId([7; 16]),
        name: "dev".into(),
    };
    store.add_tenant(&tenant).await.unwrap();
    store.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let lock = DataLock::take(&data).unwrap();
    let (code, said) = run(dir.path(), &args);
    assert!(code == 6 && said.contains("in use"), "{said}");
    drop(lock);

    let (code, said) = run(dir.path(), &args);
    assert_eq!(code, 0, "{said}");
    let counted = |line: &str| line.split_whitespace().eq(["tenants", "1"]);
    assert!(said.lines().any(counted), "{said}");
    let lines = format!("[store]\npostgres = \"{url}\"\n");
    assert!(said.contains(&lines), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before, "the file is as it was");
    let place = PostgresUrl::parse(&url).unwrap();
    let moved = PostgresStore::open(&place, None).await.unwrap();
    assert_eq!(moved.load().await.unwrap().tenants, [tenant]);

    let (code, said) = run(dir.path(), &args);
    assert!(code == 6 && said.contains("not empty"), "{said}");
    fs::write(
        dir.path().join("keywrightd.toml"),
        format!("{CONFIG}{lines}"),
    )
    .unwrap();
    let (code, said) = run(dir.path(), &args);
    assert!(code == 4 && said.contains("[store] already"), "{said}");
}

#[test]
fn init_says_where_the_database_is_and_nothing_secret() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    fs::write(&password, "geheim\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let init = |url: &str| {
        let store = format!("[store]\npostgres = \"{url}\"\npassword_file = \"password\"\n");
        let path = dir.path().join("keywrightd.toml");
        fs::write(path, format!("{CONFIG}{store}")).unwrap();
        let (code, said) = run(dir.path(), &["init", "--admin", "spiffe://dev.keywright/a"]);
        assert!(
            !said.contains("geheim") && !said.contains("postgres://"),
            "{said}"
        );
        (code, said)
    };
    let server = Postgres::shared();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let (code, said) = init(&format!("postgres://k@127.0.0.1:{port}/k"));
    let place = format!("127.0.0.1:{port} (database k, user k)");
    assert!(code == 6 && said.contains(&place), "{said}");
    let role = format!("CREATE ROLE {GUARDED} LOGIN PASSWORD 'another'");
    server.sql("postgres", &role);
    let (code, said) = init(&server.url_of(GUARDED, "postgres"));
    assert!(
        code == 6 && said.contains("correct the password file"),
        "{said}"
    );
    // The database is good: the next thing that is wrong is the module.
    let (code, said) = init(&server.create_database("begins"));
    assert!(code == 5 && said.contains("/nowhere.so"), "{said}");
    assert_eq!(server.sql("begins", "SELECT COUNT(*) FROM tenants"), "0");
    let (code, said) = init("postgres://k@db.internal/k");
    assert!(code == 3 && said.contains("verify-full"), "{said}");
}
