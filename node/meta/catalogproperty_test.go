package meta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// alone is a machine that can lose power, as the groups of a service. Some answers are lost, so that a caller
// does not know what became of a command, and repeats it.
type alone struct {
	driver *fsmtest.Driver
	rng    *rand.Rand
}

var errAnswerLost = errors.New("the answer is lost")

func (a *alone) Propose(_ context.Context, _ raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	if a.rng.IntN(12) == 0 {
		return raftfsm.Result{}, errAnswerLost // it never left
	}
	out := a.driver.Propose(cmd)[0]
	if a.rng.IntN(12) == 0 {
		return raftfsm.Result{}, errAnswerLost
	}
	return out.Result, out.Err
}

func (a *alone) Query(ctx context.Context, _ raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	data, err := a.driver.Machine().Query(ctx, q)
	return raftfsm.Answer{Data: data}, err
}

func (*alone) AwaitApplied(context.Context, raftfsm.GroupID, uint64) error { return nil }
func (*alone) Level() int                                                  { return raftfsm.LevelCatalog }

// publisher is somebody who publishes an archive, one step at a time.
type publisher struct {
	u       pkgstore.Upload
	archive []byte
	pkg     pkgstore.Package
	at      pkgstore.Progress
	began   bool
}

// step does what is next, and tells whether the archive is published or finally refused.
func (p *publisher) step(ctx context.Context, s *Service) (finished bool, stored pkgstore.Package, err error) {
	switch {
	case !p.began:
		if p.at, err = s.BeginUpload(ctx, p.u, 1<<30); err == nil {
			p.began = true
		}
	case p.at.Next < p.u.Chunks():
		from := int(p.at.Next) * pkgstore.ChunkBytes
		var at pkgstore.Progress
		if at, err = s.PutChunk(ctx, p.u, p.at.Generation, p.at.Next, p.archive[from:min(len(p.archive), from+pkgstore.ChunkBytes)]); err == nil {
			p.at.Next = at.Next
		}
	default:
		stored, _, err = s.Publish(ctx, p.pkg, p.at.Generation)
		finished = err == nil || errors.Is(err, pkgstore.ErrConflict)
	}
	if errors.Is(err, pkgstore.ErrUpload) {
		p.began = false // it expired: begin again
	}
	return finished, stored, err
}

// Publishers race, answers are lost, power fails between any two steps, uploads expire: whatever is visible is
// whole, the first content of a version stays, who comes second with another one is told so, and who repeats
// gets the same answer.
func TestRacingPublishers(t *testing.T) {
	key, second := pkgtest.NewKey(t), pkgtest.NewKey(t)
	var archives [][]byte
	for _, o := range []pkgtest.Options{
		{Bytes: 600 << 10}, {Bytes: 300 << 10, Text: "other"}, {Version: "0.2.0", Bytes: 10},
	} {
		p := pkgtest.New(t, o, key)
		plain, err := p.Bytes()
		check(t, err)
		signed, err := p.Sign(second.Signer)
		check(t, err)
		both, err := signed.Bytes()
		check(t, err)
		archives = append(archives, plain, both)
	}
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { race(t, seed, archives, key, second) })
	}
}

func race(t *testing.T, seed uint64, archives [][]byte, keys ...pkgtest.Key) {
	rng := rand.New(rand.NewPCG(seed, 8))
	driver := fsmtest.NewCrashable(t, func() raftfsm.Machine { return NewMachine() })
	a := &alone{driver: driver, rng: rng}
	s := NewService(Options{Groups: a, Group: metaGroup, Machine: driver.Machine().(*Machine), Region: "us-west", Clock: func() time.Time { return driver.Wall }})
	for _, k := range keys {
		trusted, err := pkgstore.NewKey("acme", k.PEM, mwpkg.AnyPublisher)
		check(t, err)
		for err = errAnswerLost; errors.Is(err, errAnswerLost); {
			_, err = s.AddKey(t.Context(), trusted)
		}
		check(t, err)
	}
	var racers []*publisher
	for range 5 {
		racers = append(racers, newPublisher(t, archives[rng.IntN(len(archives))]))
	}
	won := map[string]pkgstore.Digest{} // the content of each version
	for step := 0; len(racers) > 0 && step < 2000; step++ {
		switch rng.IntN(40) {
		case 0:
			driver.LosePower(rng)
		case 1:
			driver.Sync()
		case 2:
			driver.Time += time.Duration(rng.IntN(50)) * time.Minute
			_, _ = s.SweepUploads(t.Context()) // its answer may be lost
		}
		i := rng.IntN(len(racers))
		finished, stored, err := racers[i].step(t.Context(), s)
		id, digest := racers[i].pkg.ID(), racers[i].pkg.Digest
		switch {
		case err == nil && finished:
			if was, ok := won[id]; ok && was != digest || stored.Digest != digest {
				t.Fatalf("%s is published as %s, and was as %s", id, digest, was)
			}
			won[id] = digest
		case errors.Is(err, pkgstore.ErrConflict):
			if was, ok := won[id]; ok && was == digest {
				t.Fatalf("%s conflicts with itself", id)
			}
		case err != nil && !errors.Is(err, errAnswerLost) && !errors.Is(err, pkgstore.ErrUpload):
			t.Fatal(err)
		}
		if finished {
			racers = append(racers[:i], racers[i+1:]...)
		}
		wantWhole(t, s, won)
	}
	if len(racers) > 0 {
		t.Fatalf("%d publishers never finish", len(racers))
	}
}

func newPublisher(t *testing.T, archive []byte) *publisher {
	t.Helper()
	opened, err := mwpkg.Open(archive)
	check(t, err)
	u := pkgstore.Upload{Namespace: "acme", Archive: sha256.Sum256(archive), Size: uint64(len(archive))}
	p := pkgstore.Package{Namespace: "acme", Name: opened.Manifest.Metadata.Name, Version: opened.Manifest.Metadata.Version, Digest: opened.Digest, Archive: u.Archive, Size: u.Size}
	for _, sig := range opened.Signatures {
		p.Signatures = append(p.Signatures, pkgstore.Signature{Key: sig.KeyID, Bytes: sig.Value})
	}
	return &publisher{u: u, archive: archive, pkg: p}
}

// wantWhole reads every visible package: it is all there, and it is the one that won.
func wantWhole(t *testing.T, s *Service, won map[string]pkgstore.Digest) {
	t.Helper()
	all, _, err := s.Packages(t.Context(), []string{"acme"}, pkgstore.Filter{}, "", 100)
	check(t, err)
	seen := map[string]bool{}
	for _, p := range all {
		seen[p.ID()] = true
		if was, ok := won[p.ID()]; ok && was != p.Digest {
			t.Fatalf("%s was published as %s and is %s", p.ID(), was, p.Digest)
		}
		u := pkgstore.Upload{Namespace: p.Namespace, Archive: p.Archive, Size: p.Size}
		h := sha256.New()
		for i := range u.Chunks() {
			chunk, err := s.Chunk(t.Context(), u, i)
			if err != nil {
				t.Fatalf("chunk %d of %s: %v", i, p.ID(), err)
			}
			h.Write(chunk)
		}
		if pkgstore.Digest(h.Sum(nil)) != p.Archive {
			t.Fatalf("%s is not whole", p.ID())
		}
	}
	for id := range won {
		if !seen[id] {
			t.Fatalf("%s was acknowledged and is gone", id)
		}
	}
}
