package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"testing/fstest"
	"time"

	"connectrpc.com/connect"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// measurePackagesPublish publishes packages of 1 MiB of noise, one after the other: from the first call with
// the file in memory to the acknowledgement, verification included.
func measurePackagesPublish(ctx context.Context, b *bench) error {
	if err := b.up(ctx); err != nil {
		return err
	}
	clients, err := b.newClients(1, false)
	if err != nil {
		return err
	}
	defer clients[0].Close()
	c := clients[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	add := &packagesv1.AddKeyRequest{Tenant: "bench", Publisher: mwpkg.AnyPublisher, Pem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))}
	if _, err := c.Packages().AddKey(ctx, connect.NewRequest(add)); err != nil {
		return err
	}
	var took []time.Duration
	t := &client.Transfer{Client: c, Timeout: callTimeout}
	const samples = 20
	for i := range samples {
		archive, err := benchPackage(i, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := t.Publish(ctx, "bench", archive); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	median, longest := summary(took)
	conf := config{"bytes": 1 << 20, "samples": len(took), "loop": "one after the other"}
	b.report.scalar("packages.publish.median", milliseconds(median), "ms", conf)
	b.report.scalar("packages.publish.max", milliseconds(longest), "ms", conf)
	return nil
}

// benchPackage is a signed package with 1 MiB that does not compress.
func benchPackage(i int, private []byte) ([]byte, error) {
	files, err := mwpkg.Scaffold(fmt.Sprintf("bench/flow-%c", 'a'+i))
	if err != nil {
		return nil, err
	}
	noise := make([]byte, 1<<20)
	rand.Read(noise) // never fails: crypto/rand ends the process instead
	folder := fstest.MapFS{"data.bin": {Data: noise, Mode: 0o644}}
	for _, f := range files {
		folder[f.Path] = &fstest.MapFile{Data: bytes.Clone(f.Data), Mode: 0o644}
	}
	p, err := mwpkg.Build(folder)
	if err != nil {
		return nil, err
	}
	signer, err := mwpkg.LoadSigner(private, nil)
	if err != nil {
		return nil, err
	}
	if p, err = p.Sign(signer); err != nil {
		return nil, err
	}
	return p.Bytes()
}

// measurePackagesList runs the benchmark that lists pages of 50 among 10,000 packages.
func measurePackagesList(ctx context.Context, b *bench) error {
	for _, name := range []string{"pages", "words", "none"} {
		r, err := runGoBenchmark(ctx, b, "node/meta", "BenchmarkListPackages/"+name)
		if err != nil {
			return err
		}
		b.report.scalar("packages.list."+name, r.ns/1e6, "ms", config{"packages": 10_000, "page": 50, "samples": r.samples, "loop": "one goroutine, without network"})
	}
	return nil
}
