package meta

import (
	"bytes"
	"testing"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// A restored region has the old one's packages with their content, installs, keys and revocations; uploads
// that were under way are left behind, and the catalog answers nobody before it is whole.
func TestRestoredCatalogIsTheSame(t *testing.T) {
	old := newShop(t)
	p := old.mustPublish("acme", pkgtest.Options{Bytes: 600 << 10}, old.acme)
	old.mustPublish(pkgstore.Public, pkgtest.Options{Name: "lib"}, old.platform)
	old.mustPublish("acme", pkgtest.Options{Version: "0.2.0"}, old.platform)
	old.mustInstall("acme", named("acme/flow@0.1.0"))
	old.mustInstall("acme", named("lib"))
	check(t, old.Uninstall(t.Context(), "acme", "lib"))
	_, err := old.RevokeKey(t.Context(), pkgstore.Public, old.platform.ID, pkgstore.Compromised, "lost")
	check(t, err)
	begun := pkgstore.Upload{Namespace: "acme", Archive: pkgstore.Digest{1}, Size: 2 * pkgstore.ChunkBytes}
	at, err := old.BeginUpload(t.Context(), begun)
	check(t, err)
	_, err = old.PutChunk(t.Context(), begun, at.Generation, 0, make([]byte, pkgstore.ChunkBytes))
	check(t, err)
	want, err := old.Content(t.Context(), &p, 0, int(p.Size))
	check(t, err)

	now := newShop(t)
	used := now.region.meta.Restore(old.region.meta.Backup(3)...)
	wantError(t, "a region whose catalog was used", used, raftfsm.ErrNotEmpty)
	fresh := &shop{t: t, region: newRegion(t, regionRules), receipts: &taken{}, acme: old.acme, platform: old.platform}
	fresh.open()
	chunks := old.region.meta.Backup(3)
	begin := raftfsm.RestoreStep{Op: raftfsm.RestoreBegin, Backup: raftfsm.BackupID{1}}
	_, err = raftfsm.DecodeRestoreResult(fresh.region.meta.Propose(begin.Command())[0].Data)
	check(t, err)
	rows := raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Backup: raftfsm.BackupID{1}, Rows: chunks[0]}
	_, err = raftfsm.DecodeRestoreResult(fresh.region.meta.Propose(rows.Command())[0].Data)
	check(t, err)
	_, _, err = fresh.List(t.Context(), nil, pkgstore.Filter{}, "", 10)
	wantError(t, "a list meanwhile", err, raftfsm.ErrRestoring)
	_, _, err = fresh.publish("acme", pkgtest.Options{}, fresh.acme)
	wantError(t, "a package meanwhile", err, raftfsm.ErrRestoring)
	check(t, fresh.region.meta.Restore(chunks...))
	for range 2 {
		got, err := fresh.Content(t.Context(), &p, 0, int(p.Size))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("content of %d bytes, %v", len(got), err)
		}
		check(t, fresh.load("acme", "acme/flow"))
		_, err = fresh.installAs("acme", named("acme/flow@0.2.0"))
		wantCode(t, "what a compromised key signed", err, mwpkg.CodeKeyCompromised)
		wantError(t, "what was uninstalled", fresh.load("acme", "lib"), pkgstore.ErrNotInstalled)
		fresh.wantNoUploads()
		fresh.region.meta.Restart()
		fresh.open()
	}
	again, what, err := fresh.publish("acme", pkgtest.Options{Version: "0.3.0"}, fresh.acme)
	if err != nil || what != pkgstore.PublishedNew || again.Stamp.Wall < p.Stamp.Wall {
		t.Errorf("the next package: %+v, %v, %v", again, what, err)
	}
	if !t.Failed() {
		for what, row := range map[string][]byte{
			"a bad package": raftfsm.AppendRow(nil, recordKey(tablePackages, "acme a@1"), appendRecord(nil, record{value: []byte("?"), version: 1, tableVersion: 1})),
			"a bad blob":    raftfsm.AppendRow(nil, blobKey(spaceBlob, blobID{1}), encodeBlob(blob{namespace: "acme", size: 1, next: 1})),
			"an upload":     raftfsm.AppendRow(nil, blobKey(spaceUpload, blobID{1}), nil),
		} {
			wantError(t, what, newRegion(t, regionRules).meta.Restore(row), raftfsm.ErrRestoreRefused)
		}
	}
}
