"""Asks the queries of `make bench-index` of another engine and prints one JSON object about it.

    index.py postgres|tantivy|clickhouse DOCUMENTS QUERIES FOLDER SECONDS_A_CLASS [POSTGRES_BIN]

DOCUMENTS has one document a line, QUERIES one query with its right answer. Every engine returns whole
documents, newest first and then by id; lists are asked without a total, which the engines have no cheap
bounded form of. Latency is that of a call in this process: of PostgreSQL over a socket, of the others in
process. FOLDER is empty and is left with the engine's files.
"""

import json
import os
import signal
import subprocess
import sys
import time

DEPTH = 5


class Postgres:
    """A server with btree indexes in the order of answers, and GIN over the digests of a document."""

    fields = ("id", "time", "kind", "tenant", "execution", "task", "pack", "rule", "decision", "reason", "runner", "zone",
              "cost", "duration", "inputs", "digests", "outputs", "prefixes")

    def __init__(self, folder, binaries):
        self.data, self.bin, self.server = os.path.join(folder, "data"), binaries, None
        # The server refuses to run as root; in a user namespace of its own it is nobody, with our files.
        self.prefix = ["unshare", "--user"] if os.geteuid() == 0 else []
        self.folder = folder
        self.run("initdb", "-D", self.data, "-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8")

    def run(self, name, *args):
        done = subprocess.run([*self.prefix, os.path.join(self.bin, name), *args], cwd="/", stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stdout[-800:]}")

    def load(self, documents):
        import psycopg
        with open(os.path.join(self.folder, "log"), "w") as log:
            self.server = subprocess.Popen(
                [*self.prefix, os.path.join(self.bin, "postgres"), "-D", self.data, "-k", self.folder, "-c", "listen_addresses=",
                 "-c", "shared_buffers=2GB", "-c", "work_mem=64MB", "-c", "maintenance_work_mem=1GB", "-c", "jit=off",
                 "-c", "max_wal_size=8GB", "-c", "random_page_cost=1.1", "-c", "effective_cache_size=8GB"],
                cwd="/", stdout=log, stderr=log)
        for _ in range(300):
            try:
                self.db = psycopg.connect(host=self.folder, user="bench", dbname="postgres", autocommit=True)
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        else:
            raise SystemExit("postgres did not start: " + open(os.path.join(self.folder, "log")).read()[-800:])
        self.db.prepare_threshold = 0
        do = self.db.execute
        do("""create table documents (id bytea, time bigint, kind text, tenant text, execution bytea, task bytea, pack text, rule text,
              decision text, reason text, runner text, zone text, cost bigint, duration int, inputs bytea[], digests bytea[],
              outputs bytea[], prefixes int[])""")
        with self.db.cursor() as cursor, cursor.copy("copy documents from stdin") as copy:
            for line in open(documents):
                d = json.loads(line)
                digests = d["inputs"] + d["outputs"] + d["subjects"]
                row = [raw(d["id"]), d["time"], d["kind"], d["tenant"], raw(d["execution"]), raw(d["task"]), d["pack"], d["rule"],
                       d["decision"], d["reason"], d["runner"], d["zone"], d["cost"], d["duration"], raw_list(d["inputs"]),
                       raw_list(digests), raw_list(d["outputs"]), "{" + ",".join(str(signed(g)) for g in digests) + "}"]
                copy.write("\t".join("\\N" if v is None else str(v) for v in row) + "\n")
        for index in ("unique (id, tenant)", "(time desc, id)", "(tenant, time desc, id)", "(tenant, decision, rule, time desc, id)",
                      "(execution)", "(task)", "(runner, pack)", "(pack)"):
            do(f"create {'unique ' if index.startswith('unique') else ''}index on documents {index.removeprefix('unique ')}")
        for column in ("digests", "inputs", "prefixes"):
            do(f"create index on documents using gin ({column}) with (fastupdate=off)")
        do("vacuum (analyze) documents")
        do("checkpoint")

    def where(self, q):
        terms, args = [], []
        if q["tenant"]:
            terms, args = ["tenant = %s"], [q["tenant"]]
        for t in q["terms"]:
            if t["field"] == "digest" and t["prefix"]:
                terms.append("prefixes @> array[%s]::int[]")
                args.append(signed(t["value"]))
            elif t["field"] == "digest":
                terms.append("digests @> array[%s]::bytea[]")
                args.append(bytes.fromhex(t["value"]))
            else:
                terms.append(t["field"].removeprefix("attr.") + " = %s")
                args.append(bytes.fromhex(t["value"]) if t["field"] in ("execution", "task") else t["value"])
        if q["to"]:
            terms.append("time >= %s and time < %s")
            args += [q["from"], q["to"]]
        return " and ".join(terms) or "true", args

    def list(self, q):
        where, args = self.where(q)
        rows = self.db.execute(f"select * from documents where {where} order by time desc, id limit {q['limit']} offset {q['skip']}",
                               args, prepare=True).fetchall()
        return [r[0].hex() for r in rows]

    def count(self, q):
        where, args = self.where(q)
        return self.db.execute(f"select count(*) from documents where {where}", args, prepare=True).fetchone()[0]

    def facet(self, q):
        where, args = self.where(q)
        return dict(self.db.execute(f"select rule, count(*) from documents where {where} group by rule", args, prepare=True).fetchall())

    def consumers(self, digests):
        rows = self.db.execute("select id, time, outputs, documents.* from documents where inputs && %s::bytea[]",
                               [[bytes.fromhex(g) for g in digests]], prepare=True).fetchall()
        return [(r[0].hex(), r[1], [o.hex() for o in r[2]]) for r in rows]

    def about(self):
        return {"version": self.db.execute("show server_version").fetchone()[0], "bytes": self.size(), "fetched": "socket, server process"}

    def size(self):
        return self.db.execute("select pg_total_relation_size('documents')").fetchone()[0]

    def close(self):
        if self.server:
            self.server.send_signal(signal.SIGINT)  # it does not wait for connections then
            self.server.wait(60)


class Tantivy:
    """An index in process, in one merged segment, with a fast field that has the order of answers."""

    texts = ("id", "kind", "tenant", "execution", "task", "pack", "rule", "decision", "reason", "runner", "zone")

    def __init__(self, folder, _):
        import tantivy
        self.t, self.folder = tantivy, folder
        schema = tantivy.SchemaBuilder()
        for name in self.texts:
            schema.add_text_field(name, stored=True, tokenizer_name="raw", fast=name == "rule", index_option="basic")
        for name in ("digest", "input"):
            schema.add_text_field(name, stored=name == "digest", tokenizer_name="raw", index_option="basic")
        schema.add_text_field("output", stored=True, tokenizer_name="raw", index_option="basic")
        schema.add_unsigned_field("order", fast=True, stored=False, indexed=False)
        schema.add_integer_field("time", fast=True, stored=True, indexed=True)
        for name in ("cost", "duration"):
            schema.add_integer_field(name, stored=True)
        self.schema = schema.build()

    def load(self, documents):
        self.index = self.t.Index(self.schema, path=self.folder)
        writer = self.index.writer(heap_size=512 << 20, num_threads=2)
        for line in open(documents):
            d = json.loads(line)
            doc = self.t.Document()
            for name in self.texts:
                if d[name] is not None:
                    doc.add_text(name, d[name])
            for g in d["inputs"]:
                doc.add_text("input", g)
            for g in d["outputs"]:
                doc.add_text("output", g)
            for g in d["inputs"] + d["outputs"] + d["subjects"]:
                doc.add_text("digest", g)
            doc.add_integer("time", d["time"])
            # 30 bits of the id behind the time, turned round, since ids rise where times fall.
            doc.add_unsigned("order", ((d["time"] - 1700000000000) << 24 | (0xFFFFFF - int(d["id"][:6], 16))))
            for name in ("cost", "duration"):
                if d[name] is not None:
                    doc.add_integer(name, d[name])
            writer.add_document(doc)
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()
        self.searcher = self.index.searcher()

    def query(self, q):
        Q, must = self.t.Query, self.t.Occur.Must
        parts = []
        if q["tenant"]:
            parts.append(Q.term_query(self.schema, "tenant", q["tenant"], "basic"))
        for t in q["terms"]:
            field = t["field"].removeprefix("attr.")
            if t["prefix"]:
                parts.append(Q.regex_query(self.schema, field, t["value"] + ".*"))
            else:
                parts.append(Q.term_query(self.schema, field, t["value"], "basic"))
        if q["to"]:
            parts.append(Q.range_query(self.schema, "time", self.t.FieldType.Integer, q["from"], q["to"], True, False))
        if not parts:
            return Q.all_query()
        return parts[0] if len(parts) == 1 else Q.boolean_query([(must, p) for p in parts])

    def list(self, q):
        hits = self.searcher.search(self.query(q), limit=q["limit"], offset=q["skip"], count=False, order_by_field="order").hits
        return [self.searcher.doc(address).to_dict()["id"][0] for _, address in hits]

    def count(self, q):
        return self.searcher.search(self.query(q), limit=1, count=True).count

    def facet(self, q):
        out = self.searcher.aggregate(self.query(q), {"rules": {"terms": {"field": "rule", "size": 1000}}})
        return {b["key"]: b["doc_count"] for b in out["rules"]["buckets"]}

    def consumers(self, digests):
        query = self.t.Query.term_set_query(self.schema, "input", digests)
        out = []
        for _, address in self.searcher.search(query, limit=10000, count=False, order_by_field="order").hits:
            d = self.searcher.doc(address).to_dict()
            out.append((d["id"][0], d["time"][0], d.get("output", [])))
        return out

    def about(self):
        return {"version": self.t.__version__, "bytes": folder_size(self.folder), "fetched": f"in process, {self.searcher.num_segments} segments"}

    def close(self):
        pass


class ClickHouse:
    """chdb in process: MergeTree by tenant and time, bloom filters for what is searched one by one."""

    def __init__(self, folder, _):
        from chdb import session
        self.folder, self.s = folder, session.Session(os.path.join(folder, "data"))

    def load(self, documents):
        do = self.s.query
        do("create database bench engine = Atomic")
        do("""create table bench.documents (id UInt64, time Int64, kind LowCardinality(String), tenant LowCardinality(String),
              execution UInt64, task UInt64, pack LowCardinality(Nullable(String)), rule LowCardinality(Nullable(String)),
              decision LowCardinality(Nullable(String)), reason Nullable(String), runner LowCardinality(Nullable(String)),
              zone LowCardinality(Nullable(String)), cost Nullable(Int64), duration Nullable(UInt32),
              inputs Array(FixedString(32)), outputs Array(FixedString(32)), subjects Array(FixedString(32)),
              digests Array(FixedString(32)) alias arrayConcat(inputs, outputs, subjects), prefixes Array(UInt32),
              index by_time time type minmax, index by_execution execution type bloom_filter(0.01),
              index by_task task type bloom_filter(0.01), index by_runner runner type set(0),
              index by_input inputs type bloom_filter(0.01), index by_output outputs type bloom_filter(0.01),
              index by_subject subjects type bloom_filter(0.01), index by_prefix prefixes type bloom_filter(0.01))
              engine = MergeTree order by (tenant, time) settings index_granularity = 4096""")
        do(f"""insert into bench.documents select reinterpretAsUInt64(reverse(unhex(id))), time, kind, tenant,
               reinterpretAsUInt64(reverse(unhex(execution))), reinterpretAsUInt64(reverse(unhex(task))), pack, rule, decision, reason,
               runner, zone, cost, duration, arrayMap(x -> toFixedString(unhex(x), 32), inputs),
               arrayMap(x -> toFixedString(unhex(x), 32), outputs), arrayMap(x -> toFixedString(unhex(x), 32), subjects),
               arrayMap(x -> reinterpretAsUInt32(reverse(unhex(substring(x, 1, 8)))), arrayConcat(inputs, outputs, subjects))
               from file('{documents}', JSONEachRow, 'id String, time Int64, kind String, tenant String, execution String, task String,
               pack Nullable(String), rule Nullable(String), decision Nullable(String), reason Nullable(String), runner Nullable(String),
               zone Nullable(String), cost Nullable(Int64), duration Nullable(UInt32), inputs Array(String), outputs Array(String),
               subjects Array(String)')""")
        do("optimize table bench.documents final")

    def where(self, q):
        terms = [f"tenant = '{q['tenant']}'"] if q["tenant"] else []
        for t in q["terms"]:
            v = t["value"]
            if t["field"] == "digest" and t["prefix"]:
                terms.append(f"has(prefixes, {int(v, 16)})")
            elif t["field"] == "digest":
                terms.append("(" + " or ".join(f"has({c}, toFixedString(unhex('{v}'), 32))" for c in ("inputs", "outputs", "subjects")) + ")")
            elif t["field"] in ("execution", "task"):
                terms.append(f"{t['field']} = {int(v, 16)}")
            else:
                terms.append(f"{t['field'].removeprefix('attr.')} = '{v}'")
        if q["to"]:
            terms.append(f"time >= {q['from']} and time < {q['to']}")
        return " and ".join(terms) or "1"

    def rows(self, sql):
        return [json.loads(line) for line in str(self.s.query(sql, "JSONCompactEachRow")).splitlines()]

    def list(self, q):
        rows = self.rows("select lpad(lower(hex(id)), 16, '0'), time, kind, tenant, execution, task, pack, rule, decision, reason, runner, zone, cost, duration, "
                         "arrayMap(x -> hex(x), inputs), arrayMap(x -> hex(x), outputs), arrayMap(x -> hex(x), subjects) "
                         f"from bench.documents where {self.where(q)} order by time desc, id limit {q['limit']} offset {q['skip']}")
        return [r[0] for r in rows]

    def count(self, q):
        return int(self.rows(f"select count() from bench.documents where {self.where(q)}")[0][0])

    def facet(self, q):
        return {r[0]: int(r[1]) for r in self.rows(f"select rule, count() from bench.documents where {self.where(q)} group by rule")}

    def consumers(self, digests):
        these = ", ".join(f"toFixedString(unhex('{g}'), 32)" for g in digests)
        rows = self.rows(f"select lpad(lower(hex(id)), 16, '0'), time, arrayMap(x -> lower(hex(x)), outputs) from bench.documents where hasAny(inputs, [{these}])")
        return [(r[0], int(r[1]), r[2]) for r in rows]

    def about(self):
        row = self.rows("select version(), (select sum(bytes_on_disk) from system.parts where database = 'bench' and active)")[0]
        return {"version": row[0], "bytes": int(row[1]), "fetched": "in process"}

    def close(self):
        self.s.close()


def raw(text):
    return "\\\\x" + text


def raw_list(texts):
    return "{" + ",".join('"\\\\\\\\x' + t + '"' for t in texts) + "}"


def signed(text):
    n = int(text[:8], 16)
    return n - (1 << 32) if n >= 1 << 31 else n


def folder_size(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def walk(engine, start):
    known, followed, level, steps = {start}, set(), [start], []
    for _ in range(DEPTH):
        found = [r for r in (engine.consumers(level) if level else []) if r[0] not in followed]
        found.sort(key=lambda r: (-r[1], r[0]))
        level = []
        for id, _, outputs in found:
            followed.add(id)
            steps.append(id)
            for g in outputs:
                if g not in known:
                    known.add(g)
                    level.append(g)
    return steps, len(known) - 1


def right(engine, q):
    """Asks a query and says how long that took and whether the answer is right."""
    began = time.perf_counter()
    if q["start"]:
        got = walk(engine, q["start"])
        want = (q["ids"], q["digests"])
    elif q["class"] == "facet_by_rule":
        got, want = engine.facet(q), q["facet"] or {}
    elif q["exact"]:
        got, want = engine.count(q), q["total"]
    else:
        got, want = engine.list(q), q["ids"]
    return (time.perf_counter() - began) * 1000, got == want


def main():
    name, documents, queries, folder, seconds = sys.argv[1:6]
    engine = {"postgres": Postgres, "tantivy": Tantivy, "clickhouse": ClickHouse}[name](folder, sys.argv[6] if len(sys.argv) > 6 else "")
    try:
        began = time.time()
        engine.load(documents)
        out = {"build_s": time.time() - began, **engine.about(), "classes": {}}
        print(f"  {name} has the documents after {out['build_s']:.0f} s", file=sys.stderr)
        by_class = {}
        for line in open(queries):
            q = json.loads(line)
            by_class.setdefault(q["class"], []).append(q)
        for name_of_class, asked in by_class.items():
            began, warm, times, wrong = time.time(), len(asked) // 5, [], 0
            for q in asked[-warm:]:
                right(engine, q)
                if time.time() - began > float(seconds) / 4:
                    break
            began = time.time()
            for q in asked:
                took, good = right(engine, q)
                times.append(took)
                wrong += not good
                if time.time() - began > float(seconds):
                    break
            times.sort()
            out["classes"][name_of_class] = {"ms": times, "wrong": wrong}
        out["bytes"] = engine.about()["bytes"]
        print(json.dumps(out))
    finally:
        engine.close()


if __name__ == "__main__":
    main()
