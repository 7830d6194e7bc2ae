package meta

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// What an attacker, or a mistake, does to a catalog (after theupdateframework.org/security): each case says
// what must come of it.
func TestBadInputsOfTheCatalog(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *shop){
		"C01 a version is published again":                 c01Republish,
		"C02 an older version takes the place of a newer":  c02Rollback,
		"C03 a reader is held at an old state":             c03Freeze,
		"C04 a version far ahead hides later ones":         c04FastForward,
		"C05 kept bytes are exchanged after the install":   c05Exchange,
		"C06 a tenant asks for another's private package":  c06Foreign,
		"C07 a version is yanked and then installed":       c07Yank,
		"C08 a key is revoked between install and load":    c08Revoke,
		"C09 an upload does not end, or is not as said":    c09Endless,
		"C10 a name that reads like another, or is theirs": c10Squat,
	} {
		t.Run(name, func(t *testing.T) { test(t, newShop(t)) })
	}
}

func c01Republish(t *testing.T, s *shop) {
	first := s.mustPublish("acme", pkgtest.Options{Text: "one"}, s.acme)
	again, what, err := s.publish("acme", pkgtest.Options{Text: "one"}, s.acme)
	if err != nil || what != pkgstore.PublishedBefore || again.Digest != first.Digest || again.Archive != first.Archive {
		t.Errorf("the same content: %v, %v", what, err)
	}
	_, _, err = s.publish("acme", pkgtest.Options{Text: "two"}, s.acme)
	wantError(t, "other content", err, pkgstore.ErrConflict)
	s.wantNoUploads()
	// The same name of another tenant, and of the platform, is another package.
	s.mustPublish(pkgstore.Public, pkgtest.Options{Text: "three"}, s.platform)
}

func c02Rollback(t *testing.T, s *shop) {
	s.mustPublish("acme", pkgtest.Options{Version: "0.9.0"}, s.acme)
	s.mustPublish("acme", pkgtest.Options{Version: "0.10.0"}, s.acme)
	s.mustInstall("acme", named("acme/flow@0.10.0"))
	_, err := s.installAs("acme", named("acme/flow@0.9.0"))
	wantError(t, "an older version", err, pkgstore.ErrDowngrade)
	if out := s.mustInstall("acme", named("acme/flow@0.9.0"), downgrade); out.Install.Version != "0.9.0" {
		t.Errorf("downgrade that is allowed: %+v", out)
	}
}

// A frozen reader has no answer at all: reads are linearizable, and a group without its leader does not answer.
func c03Freeze(t *testing.T, s *shop) {
	s.mustPublish("acme", pkgtest.Options{}, s.acme)
	s.mustInstall("acme", named("acme/flow"))
	s.region.down[metaGroup] = true
	if err := s.load("acme", "acme/flow"); err == nil {
		t.Error("a package is loaded without meta")
	}
	if _, err := s.installAs("acme", named("acme/flow")); err == nil {
		t.Error("a package is installed without meta")
	}
}

func c04FastForward(t *testing.T, s *shop) {
	good := s.mustPublish("acme", pkgtest.Options{Version: "1.0.0"}, s.acme)
	s.mustPublish("acme", pkgtest.Options{Version: "999999.0.0"}, s.acme)
	s.mustPublish("acme", pkgtest.Options{Version: "1.1.0-rc.1"}, s.acme)
	_, err := s.Yank(t.Context(), []string{"acme"}, named("acme/flow@999999.0.0"), pkgstore.Yank{Kind: pkgstore.Yanked, Reason: "a slip"})
	check(t, err)
	p, _, err := s.Get(t.Context(), pkgstore.Namespaces("acme"), named("acme/flow"))
	if err != nil || p.Digest != good.Digest {
		t.Errorf("the latest version is %s, %v", p.Version, err)
	}
	next := s.mustPublish("acme", pkgtest.Options{Version: "1.1.0"}, s.acme)
	if out := s.mustInstall("acme", named("acme/flow")); out.Install.Digest != next.Digest {
		t.Errorf("installed %s", out.Install.Version)
	}
}

func c05Exchange(t *testing.T, s *shop) {
	p := s.mustPublish("acme", pkgtest.Options{Text: "good"}, s.acme)
	other := s.mustPublish("acme", pkgtest.Options{Version: "0.2.0", Text: "evil"}, s.acme)
	s.mustInstall("acme", named("acme/flow@0.1.0"))
	evil, err := s.Content(t.Context(), &other, 0, pkgstore.ChunkBytes)
	check(t, err)
	s.region.meta.Overwrite(chunkKey(blobIDOf("acme", p.Archive), 0), evil)
	wantError(t, "load", s.load("acme", "acme/flow"), pkgstore.ErrContent)
	if r := s.receipts.last(); r.Stage != pkgstore.StageLoad || r.Reason != "content_damaged" {
		t.Errorf("receipt %+v", r)
	}
	_, err = s.installAs("acme", named("acme/flow@0.1.0"))
	wantError(t, "install", err, pkgstore.ErrContent)
}

func c06Foreign(t *testing.T, s *shop) {
	p := s.mustPublish("acme", pkgtest.Options{}, s.acme)
	for what, id := range map[string]pkgstore.ID{"name": named("acme/flow@0.1.0"), "latest": named("acme/flow"), "digest": {Digest: &p.Digest}} {
		_, err := s.installAs("globex", id)
		wantError(t, "install by "+what, err, pkgstore.ErrUnknown)
		_, _, err = s.Get(t.Context(), pkgstore.Namespaces("globex"), id)
		wantError(t, "get by "+what, err, pkgstore.ErrUnknown)
	}
	all, _, err := s.List(t.Context(), pkgstore.Namespaces("globex"), pkgstore.Filter{}, "", 10)
	if err != nil || len(all) != 0 {
		t.Errorf("globex sees %v, %v", all, err)
	}
	// Nor does a key that acme trusts count for others.
	_, _, err = s.publish("globex", pkgtest.Options{}, s.acme)
	wantCode(t, "a key of another tenant", err, mwpkg.CodeKeyUnknown)
	_, _, err = s.publish(pkgstore.Public, pkgtest.Options{}, s.acme)
	wantCode(t, "a tenant's key for a public package", err, mwpkg.CodeKeyUnknown)
	// The platform's counts for all.
	s.mustPublish("globex", pkgtest.Options{}, s.platform)
}

func c07Yank(t *testing.T, s *shop) {
	p := s.mustPublish("acme", pkgtest.Options{}, s.acme)
	yank := func(kind pkgstore.YankKind) error {
		_, err := s.Yank(t.Context(), []string{"acme"}, named("acme/flow@0.1.0"), pkgstore.Yank{Kind: kind, Reason: "because"})
		return err
	}
	s.mustInstall("acme", named("acme/flow"))
	check(t, yank(pkgstore.Deprecated))
	check(t, s.load("acme", "acme/flow"))
	check(t, yank(pkgstore.Yanked))
	check(t, s.load("acme", "acme/flow"))
	check(t, s.Uninstall(t.Context(), "acme", "acme/flow"))
	_, err := s.installAs("acme", named("acme/flow@0.1.0"))
	wantError(t, "install of a yanked version", err, pkgstore.ErrYanked)
	s.mustInstall("acme", pkgstore.ID{Digest: &p.Digest}, locked)
	check(t, yank(pkgstore.YankNone))
	check(t, yank(pkgstore.Blocked))
	wantError(t, "load of a blocked version", s.load("acme", "acme/flow"), pkgstore.ErrBlocked)
	_, err = s.installAs("acme", pkgstore.ID{Digest: &p.Digest}, locked)
	wantError(t, "install of a blocked version by its lock", err, pkgstore.ErrBlocked)
	wantError(t, "a block that is lifted", yank(pkgstore.YankNone), pkgstore.ErrBlocked)
	wantError(t, "a block that is made less", yank(pkgstore.Yanked), pkgstore.ErrBlocked)
}

func c08Revoke(t *testing.T, s *shop) {
	s.mustPublish("acme", pkgtest.Options{}, s.acme)
	s.mustInstall("acme", named("acme/flow"))
	s.later(time.Second)
	revoke := func(kind pkgstore.Revocation) {
		t.Helper()
		_, err := s.RevokeKey(t.Context(), "acme", s.acme.ID, kind, "a drill")
		check(t, err)
	}
	revoke(pkgstore.Superseded)
	check(t, s.load("acme", "acme/flow"))
	_, _, err := s.publish("acme", pkgtest.Options{Version: "0.2.0"}, s.acme)
	wantCode(t, "publish with a superseded key", err, mwpkg.CodeKeySuperseded)
	check(t, s.Uninstall(t.Context(), "acme", "acme/flow"))
	s.mustInstall("acme", named("acme/flow"))
	revoke(pkgstore.Compromised)
	wantCode(t, "load", s.load("acme", "acme/flow"), mwpkg.CodeKeyCompromised)
	if r := s.receipts.last(); r.Reason != string(mwpkg.CodeKeyCompromised) || r.Package != "acme/flow@0.1.0" {
		t.Errorf("receipt %+v", r)
	}
	_, err = s.installAs("acme", named("acme/flow@0.1.0"))
	wantCode(t, "install", err, mwpkg.CodeKeyCompromised)
	revoke(pkgstore.Superseded) // changes nothing any more
	wantCode(t, "load after a weaker revocation", s.load("acme", "acme/flow"), mwpkg.CodeKeyCompromised)
	_, err = s.AddKey(t.Context(), pkgstore.Key{Namespace: "acme", ID: s.acme.ID, SPKI: []byte("x"), Publisher: "*"})
	wantError(t, "the key comes back", err, pkgstore.ErrKeyExists)
	// It counts again once another key has signed it.
	s.mustPublish("acme", pkgtest.Options{}, s.platform)
	check(t, s.load("acme", "acme/flow"))
}

func c09Endless(t *testing.T, s *shop) {
	archive := pkgtest.Archive(t, pkgtest.Options{Bytes: 600 << 10}, s.acme)
	u := pkgstore.Upload{Namespace: "acme", Archive: sha256.Sum256(archive), Size: uint64(len(archive))}
	at, err := s.BeginUpload(t.Context(), u)
	check(t, err)
	put := func(chunk uint32, data []byte) error {
		_, err := s.PutChunk(t.Context(), u, at.Generation, chunk, data)
		return err
	}
	wantError(t, "a chunk out of turn", put(1, archive[:pkgstore.ChunkBytes]), pkgstore.ErrUpload)
	wantError(t, "a short chunk", put(0, archive[:10]), pkgstore.ErrUpload)
	check(t, put(0, archive[:pkgstore.ChunkBytes]))
	check(t, put(0, archive[:pkgstore.ChunkBytes])) // a retry
	_, _, err = s.PublishUpload(t.Context(), u, "token-1")
	wantError(t, "publish of a part", err, pkgstore.ErrUpload)
	larger := u
	larger.Size++
	_, err = s.BeginUpload(t.Context(), larger)
	wantError(t, "another size", err, pkgstore.ErrUpload)
	for i := range uint32(10) {
		u := pkgstore.Upload{Namespace: "acme", Archive: sha256.Sum256([]byte{byte(i)}), Size: pkgstore.ArchiveBytesMax}
		_, err = s.BeginUpload(t.Context(), u)
		check(t, err)
	}
	// Nobody goes on: an hour later nothing is left, and what comes late is told so.
	s.later(time.Hour)
	svc := s.region.service()
	for left := uint64(1); left > 0; {
		left, err = svc.SweepUploads(t.Context())
		check(t, err)
	}
	s.wantNoUploads()
	wantError(t, "a chunk that comes late", put(1, archive[pkgstore.ChunkBytes:2*pkgstore.ChunkBytes]), pkgstore.ErrUpload)
	// Bytes that are not what was announced are refused and forgotten.
	at, err = s.BeginUpload(t.Context(), u)
	check(t, err)
	for i := uint32(0); int(i)*pkgstore.ChunkBytes < len(archive); i++ {
		check(t, put(i, make([]byte, min(pkgstore.ChunkBytes, len(archive)-int(i)*pkgstore.ChunkBytes))))
	}
	_, _, err = s.PublishUpload(t.Context(), u, "token-1")
	wantError(t, "other bytes", err, pkgstore.ErrUpload)
	s.wantNoUploads()
	_, err = s.BeginUpload(t.Context(), pkgstore.Upload{Namespace: "acme", Size: pkgstore.ArchiveBytesMax + 1})
	wantError(t, "too large", err, pkgstore.ErrField)
}

func c10Squat(t *testing.T, s *shop) {
	s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "acme/deploy-tool"}, s.platform)
	_, _, err := s.publish(pkgstore.Public, pkgtest.Options{Name: "acme/deploytool"}, s.platform)
	wantError(t, "a name that reads the same", err, pkgstore.ErrConfusable)
	narrow := pkgtest.NewKey(t)
	s.trust(pkgstore.Public, narrow, "acme")
	_, _, err = s.publish(pkgstore.Public, pkgtest.Options{Name: "globex/deploy-tool"}, narrow)
	wantCode(t, "another publisher's name", err, mwpkg.CodeKeyScope)
	s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "acme/other"}, narrow)
}

// wantNoUploads wants no row of an upload, and no chunk that is not of a package.
func (s *shop) wantNoUploads() {
	s.t.Helper()
	m := s.region.meta.Machine().(*Machine)
	if found, err := m.HasUploads(); err != nil || found {
		s.t.Errorf("uploads are left: %v, %v", found, err)
	}
	it, err := m.store.NewIter([]byte{spaceChunk}, []byte{spaceChunk + 1})
	check(s.t, err)
	for ok := it.First(); ok; ok = it.Next() {
		if _, err := m.store.Get(blobKey(spaceBlob, blobID(it.Key()[1:1+blobIDBytes]))); err != nil {
			s.t.Errorf("the chunk %x is of nothing", it.Key())
		}
	}
	check(s.t, it.Close())
}
