package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/policies"
)

// Suffixes of the files beside an archive.
const (
	blobSuffix   = ".sig"
	bundleSuffix = ".sigstore.json"
)

func (a *app) policySignCommand() *cobra.Command {
	var key string
	var by policies.Statement
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "sign ARCHIVE --key FILE --issuer NAME",
		Short: "Sign the archive of a pack",
		Long: `Sign an archive that policy build or opa build made, twice: inside, in .signatures.json, which opa verifies, and beside it
for cosign, in ARCHIVE.sig and ARCHIVE.sigstore.json. A signature that is inside is replaced. The key is a file as cosign generate-key-pair
or maestro pkg keygen writes it; its password comes from MAESTRO_KEY_PASSWORD or COSIGN_PASSWORD, or is asked for.`,
		Example: `  maestro policy sign --key k.key --issuer release mc.limits-7.tar.gz
  maestro policy sign --key k.key --issuer acme-security --tenant acme --valid 720h acme.limits-1.tar.gz`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "private key file (required)")
	f.StringVar(&by.Issuer, "issuer", "", "who signs (required)")
	f.StringVar(&by.Tenant, "tenant", "*", "whose pack it is; '*' for the platform's")
	f.DurationVar(&valid, "valid", 90*24*time.Hour, "how long it is valid, at most 9600h")
	must(errors.Join(cmd.MarkFlagRequired("key"), cmd.MarkFlagRequired("issuer")))
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		path := args[0]
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		source, err := policies.ReadArchive(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		private, err := readKeyFile(key, "private")
		if err != nil {
			return err
		}
		signer, err := mwpkg.LoadSigner(private, func() ([]byte, error) { return a.password(false) })
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		by.IssuedAt = time.Now()
		by.Expires = by.IssuedAt.Add(valid)
		signed, err := policies.Sign(source, by, signer)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for suffix, content := range map[string][]byte{"": signed.Archive, blobSuffix: signed.Text, bundleSuffix: signed.Bundle} {
			if err := writeShared(path+suffix, content); err != nil {
				return err
			}
		}
		scope, until := policies.Scope(by.Tenant, source.Name()), by.Expires.UTC().Format(time.RFC3339)
		result := map[string]any{"file": path, "scope": scope, "revision": source.Manifest.Revision, "digest": source.Digest(), "expires": until}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "signed\t%s\nscope\t%s\nrevision\t%s\ndigest\t%s\nexpires\t%s\n", path, scope, source.Manifest.Revision, source.Digest(), until)
		})
	})
	return cmd
}

func (a *app) policyVerifyCommand() *cobra.Command {
	var keys []string
	var keyFile, tenant, pack string
	var highest uint64
	cmd := &cobra.Command{
		Use:   "verify ARCHIVE (--key FILE... | --keys FILE)",
		Short: "Verify the archive of a pack as a region does",
		Long: `Verify an archive: that it is written plainly, is signed inside and beside by keys that may sign this pack for this tenant now, is not
expired, is not below the highest revision that was seen, and compiles. With --key each key may sign every pack of the tenant; a key
file names several with scopes, window and revocation. Exit status 1 and a reason when it is refused.`,
		Example: `  maestro policy verify --key k.pub mc.limits-7.tar.gz
  maestro policy verify --keys keys.yaml --pack mc.limits --highest 6 mc.limits-7.tar.gz`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringArrayVar(&keys, "key", nil, "public key file; repeatable")
	f.StringVar(&keyFile, "keys", "", "key file with scopes, windows and revocations")
	f.StringVar(&tenant, "tenant", "*", "whose pack it must be; '*' for the platform's")
	f.StringVar(&pack, "pack", "", "name that it must have (default: the one that it has)")
	f.Uint64Var(&highest, "highest", 0, "highest revision that was seen; lower ones are refused")
	cmd.MarkFlagsMutuallyExclusive("key", "keys")
	cmd.MarkFlagsOneRequired("key", "keys")
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		d := policies.Demand{Tenant: tenant, Pack: pack, Now: time.Now(), Highest: highest}
		var err error
		if d.Keys, err = policyKeys(keys, keyFile, tenant); err != nil {
			return err
		}
		v, err := verifyPolicy(args[0], d)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		ref := v.Pack.Ref()
		until := v.Expires.Format(time.RFC3339)
		result := map[string]any{
			"file": args[0], "pack": ref.Name, "revision": ref.Revision, "digest": ref.Digest, "tenant": tenant,
			"issuer": v.Issuer, "signedBy": v.KeyID, "archiveSignedBy": v.BlobKeyID, "expires": until, "rules": len(v.Pack.Rules()),
		}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "verified\t%s\npack\t%s\nrevision\t%d\ndigest\t%s\nissuer\t%s\nsigned by\t%s\nexpires\t%s\nrules\t%d\n",
				args[0], ref.Name, ref.Revision, ref.Digest, v.Issuer, v.KeyID, until, len(v.Pack.Rules()))
		})
	})
	return cmd
}

// policyKeys are the keys that verify believes.
func policyKeys(files []string, keyFile, tenant string) ([]policies.Key, error) {
	if keyFile != "" {
		data, err := os.ReadFile(keyFile)
		if err != nil {
			return nil, err
		}
		keys, err := policies.ParseKeys(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keyFile, err)
		}
		return keys, nil
	}
	var keys []policies.Key
	for _, path := range files {
		data, err := readKeyFile(path, "public")
		if err != nil {
			return nil, err
		}
		key, err := policies.NewKey(data, policies.Scope(tenant, "*"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		// opa sign names a key as its caller likes; the name of the file is such a name.
		named := key
		named.ID = strings.TrimSuffix(path, ".pub")
		keys = append(keys, key, named)
	}
	return keys, nil
}

// verifyPolicy verifies an archive and what stands beside it.
func verifyPolicy(path string, d policies.Demand) (*policies.Verified, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for suffix, to := range map[string]*[]byte{blobSuffix: &d.Text, bundleSuffix: &d.Bundle} {
		if *to, err = os.ReadFile(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if d.Pack == "" {
		source, err := policies.ReadArchive(data)
		if err != nil {
			return nil, err
		}
		d.Pack = source.Name()
	}
	return policies.Verify(data, d)
}
