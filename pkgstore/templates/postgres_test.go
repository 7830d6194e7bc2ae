package templates

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// database makes a database of its own on the server that MAESTRO_TEST_POSTGRES names (a URI of a role that may create some)
// and gives its URI.
func database(t *testing.T, name, setup string) string {
	t.Helper()
	server := os.Getenv("MAESTRO_TEST_POSTGRES")
	if server == "" {
		t.Skip("MAESTRO_TEST_POSTGRES names no server")
	}
	query(t, server, "drop database if exists "+name+" with (force)")
	query(t, server, "create database "+name)
	t.Cleanup(func() { query(t, server, "drop database "+name+" with (force)") })
	uri := server[:strings.LastIndex(server, "/")] + "/" + name
	query(t, uri, setup)
	return uri
}

func query(t *testing.T, uri, sql string) string {
	t.Helper()
	out, err := exec.Command("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", uri, "-c", sql).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", sql, err, out)
	}
	return strings.TrimSpace(string(out))
}

const shop = `create table customers (mail text primary key, name text); insert into customers values ('ana@shop.example', 'Ana'), ('o''bo@shop.example', 'Bo');
create table newsletter (id int, mail text references customers); insert into newsletter values (1, 'ana@shop.example'), (2, 'o''bo@shop.example');
create table orders (id int, customer text, address text, cents int); insert into orders values (10, 'ana@shop.example', '1 High Street', 4200), (11, 'o''bo@shop.example', '2 High Street', 100)`

func TestDumpsAreRestoredAndDropped(t *testing.T) {
	l := newLive(t, "pg-restore-drill", "psql", "pg_dump", "pg_restore", "curl")
	uri := database(t, "maestro_test_drill", shop)
	files := t.TempDir()
	for format, flag := range map[string]string{"custom": "-Fc", "plain": "-Fp"} {
		if out, err := exec.Command("pg_dump", flag, "-f", files+"/"+format, uri).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.WriteFile(files+"/expected", []byte("public.customers\t2\npublic.orders\t2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	backups := httptest.NewServer(http.FileServer(http.Dir(files)))
	defer backups.Close()
	for _, format := range []string{"custom", "plain"} {
		r := l.run(map[string]any{"dump": backups.URL + "/" + format, "expected": backups.URL + "/expected"}, map[string]string{"scratch": uri})
		l.expect(r, "succeeded", map[string]any{"proof": "restored", "tables": 3, "rows": 6})
	}
	if got := query(t, uri, "select count(*) from pg_database where datname like 'maestro_drill_%'"); got != "0" {
		t.Errorf("%s scratch databases are left", got)
	}
}

func TestMigrationsAreAppliedAndBackedOut(t *testing.T) {
	l := newLive(t, "db-migrate", "psql", "curl", "tar")
	uri := database(t, "maestro_test_migrate", "select 1")
	inputs := func(migrations string) map[string]any {
		return map[string]any{"migrations": migrations, "dryRun": false, "lockTimeout": "200ms"}
	}
	secrets := map[string]string{"database": uri}
	l.expect(l.run(inputs("fixtures/sql"), secrets), "succeeded", map[string]any{"pending": 2})
	l.expect(l.run(inputs("fixtures/sql"), secrets), "succeeded", map[string]any{"pending": 0})
	query(t, uri, "insert into customers values (1, 'Ada', 'ada@shop.example')")

	// The same set, grown by one that works and one that does not.
	dir := t.TempDir()
	if err := os.CopyFS(dir+"/m", os.DirFS("db-migrate/fixtures/sql")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"0003_phone.up.sql": "alter table customers add column phone text;", "0003_phone.down.sql": "alter table customers drop column phone;",
		"0004_bad.up.sql": "alter table nobody add column x int;", "0004_bad.down.sql": "select 1;",
	} {
		if err := os.WriteFile(dir+"/m/"+name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("tar", "-czf", dir+"/m.tar.gz", "-C", dir, "m").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sets := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer sets.Close()
	r := l.run(inputs(sets.URL+"/m.tar.gz"), secrets)
	l.expect(r, "failed", map[string]any{"pending": 2})
	if r.Steps[3].ID != "backout" || r.Steps[3].Status != "succeeded" {
		t.Errorf("%+v", r.Steps[3])
	}
	if got := query(t, uri, "select string_agg(number::text, ',' order by number) || ' ' || (select count(*) from information_schema.columns where table_name = 'customers') from maestro_migrations"); got != "1,2 3" {
		t.Errorf("after the backout: %s", got)
	}
}

func TestASubjectIsErasedFromADatabase(t *testing.T) {
	l := newLive(t, "subject-erasure", "psql")
	uri := database(t, "maestro_test_erase", shop)
	// A name with a quote, which must not end a statement.
	secrets := map[string]string{"subject": "o'bo@shop.example", "database": uri}
	l.expect(l.run(map[string]any{"map": "fixtures/map.tsv", "dryRun": false}, secrets), "succeeded", map[string]any{"found": 3, "left": 0})
	if got := query(t, uri, "select (select count(*) from customers), (select count(*) from newsletter), (select string_agg(coalesce(customer, '-'), ',' order by id) from orders)"); got != "1|1|ana@shop.example,-" {
		t.Errorf("left: %s", got)
	}
}

func TestASourceIsReadFromADatabase(t *testing.T) {
	l := newLive(t, "warehouse-reconcile", "psql")
	uri := database(t, "maestro_test_reconcile", "create table e (day text, x int); insert into e select 'dt=2026-11-24', g from generate_series(1, 1204) g")
	inputs := map[string]any{"sourceQuery": "select day, count(*), '9a3f' from e group by day", "warehouse": "fixtures/warehouse.tsv", "maxRepairs": 3}
	l.expect(l.run(inputs, map[string]string{"database": uri}), "succeeded", map[string]any{"equal": 1, "extra": 3})
	inputs["sourceQuery"] = "delete from e returning day, 1, '-'"
	l.expect(l.run(inputs, map[string]string{"database": uri}), "failed", nil)
	if got := query(t, uri, "select count(*) from e"); got != "1204" {
		t.Errorf("%s rows are left", got)
	}
}
