package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func (a *app) pkgKeysCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "keys", Short: "Say which keys sign packages that may be used"})
	cmd.AddCommand(a.pkgKeysAddCommand(), a.pkgKeysListCommand(), a.pkgKeysRevokeCommand(), a.pkgKeysRotateCommand())
	return cmd
}

// keyOwner is the namespace that keys of a command are in.
func keyOwner(tenant string, platform bool) string {
	if platform {
		return "*"
	}
	return tenant
}

// readMoment reads a date, or a time of RFC 3339.
func readMoment(flag, s string) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, usageError{fmt.Errorf("--%s %q; write a date such as 2026-12-31, or a time such as 2026-12-31T12:00:00Z", flag, s)}
}

func (a *app) pkgKeysAddCommand() *cobra.Command {
	r := &packagesv1.AddKeyRequest{}
	var platform bool
	var from, until string
	cmd := &cobra.Command{
		Use:   "add FILE.pub --publisher NAME",
		Short: "Trust a key",
		Long: `Trust a public key: a tenant's for its own packages, the platform's (--platform) for all. The publisher is the part of the
package names before the slash that the key may sign for: empty for names without one, * for all. What a key may do never changes;
it is revoked, or replaced with maestro pkg keys rotate.`,
		Example: `  maestro pkg keys add k.pub --publisher acme --tenant acme
  maestro pkg keys add release.pub --publisher '*' --platform --until 2027-04-01`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	tenantFlag(cmd, &r.Tenant, "who trusts it (default: the context's tenant)")
	f.BoolVar(&platform, "platform", false, "for the packages of all")
	f.StringVar(&r.Publisher, "publisher", "", "whose packages it may sign; * for all (required)")
	f.StringVar(&from, "from", "", "it is valid from then on (default: from now)")
	f.StringVar(&until, "until", "", "it signs until then (default: until it is revoked)")
	f.StringVar(&r.Comment, "comment", "", "what it is for")
	must(cmd.MarkFlagRequired("publisher"))
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) (err error) {
		data, err := readKeyFile(args[0], "public")
		if err != nil {
			return err
		}
		r.Tenant, r.Pem = keyOwner(tenant, platform), string(data)
		if r.NotBefore, err = readMoment("from", from); err != nil {
			return err
		}
		if r.NotAfter, err = readMoment("until", until); err != nil {
			return err
		}
		res, err := callOnce(ctx, a, c.Packages().AddKey, r)
		if err != nil {
			return err
		}
		return a.print(res, func(w io.Writer) { printKeys(w, []*packagesv1.TrustKey{res.GetKey()}) })
	})
	return cmd
}

func (a *app) pkgKeysListCommand() *cobra.Command {
	r := &packagesv1.ListKeysRequest{}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keys that are or were trusted",
		Example: `  maestro pkg keys list --tenant acme -o json`,
		Args:    cobra.NoArgs,
	}
	tenantFlag(cmd, &r.Tenant, "whose view it is (default: the context's tenant)")
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, _ []string) error {
		r.Tenant = tenant
		res, err := callOnce(ctx, a, c.Packages().ListKeys, r)
		if err != nil {
			return err
		}
		return a.print(res, func(w io.Writer) { printKeys(w, res.GetKeys()) })
	})
	return cmd
}

func printKeys(w io.Writer, keys []*packagesv1.TrustKey) {
	fmt.Fprintln(w, "KEY\tTENANT\tPUBLISHER\tFROM\tUNTIL\tREVOKED\tCOMMENT")
	date := func(t *timestamppb.Timestamp) string {
		if t == nil {
			return "-"
		}
		return t.AsTime().Format(time.DateOnly)
	}
	for _, k := range keys {
		publisher := k.GetPublisher()
		if publisher == "" {
			publisher = "(none)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.GetId(), k.GetTenant(), publisher, date(k.GetNotBefore()), date(k.GetNotAfter()), k.GetRevoked(), shorten(k.GetComment(), 30))
	}
}

func (a *app) pkgKeysRevokeCommand() *cobra.Command {
	r := &packagesv1.RevokeKeyRequest{}
	var platform bool
	cmd := &cobra.Command{
		Use:   "revoke KEY-ID --kind superseded|compromised",
		Short: "End the trust in a key, for good",
		Long: `End the trust in a key. After superseded it signs nothing new, and what the region saw before stays usable. After compromised
nothing that it ever signed is published, installed or loaded, anywhere in the region within a second, until another key has signed
it. A revocation can be made stronger, and never taken back.`,
		Example: `  maestro pkg keys revoke 3f1c... --kind compromised --reason 'laptop stolen'`,
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	tenantFlag(cmd, &r.Tenant, "whose key it is (default: the context's tenant)")
	f.BoolVar(&platform, "platform", false, "a key of the platform")
	f.StringVar(&r.Kind, "kind", "", "superseded or compromised (required)")
	f.StringVar(&r.Reason, "reason", "", "why")
	must(cmd.MarkFlagRequired("kind"))
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		r.Id, r.Tenant = args[0], keyOwner(tenant, platform)
		res, err := callOnce(ctx, a, c.Packages().RevokeKey, r)
		if err != nil {
			return err
		}
		return a.print(res, func(w io.Writer) { printKeys(w, []*packagesv1.TrustKey{res.GetKey()}) })
	})
	return cmd
}

// rotation is a drill, and its report.
type rotation struct {
	app    *app
	client *client.Client
	// owner is the namespace of the keys, and signer the new key.
	owner    string
	signer   signature.Signer
	old, new string

	Old     string         `json:"old"`
	New     string         `json:"new"`
	Revoked string         `json:"revoked"`
	Signed  []rotationLine `json:"signed"`
}

// rotationLine is a package that the old key has signed.
type rotationLine struct {
	Package string `json:"package"`
	Tenant  string `json:"tenant"`
	Digest  string `json:"digest"`
	// Result is signed, existing, or why it was left alone.
	Result string `json:"result"`
	// Usable is whether it can be used now that the old key is revoked.
	Usable bool `json:"usable"`
	// Tenants have it installed.
	Tenants []string `json:"tenants"`
}

func (a *app) pkgKeysRotateCommand() *cobra.Command {
	var tenant, old, key, kind, reason string
	var platform bool
	cmd := &cobra.Command{
		Use:   "rotate --old KEY-ID [--key NEW.key] [--kind superseded|compromised]",
		Short: "Replace a key: trust the new one, sign what is in use, revoke the old one, report",
		Long: `Replace a key in one go. The new key is trusted for what the old one was; it signs every package that the old one has
signed and that was not taken back, without changing a digest; then the old one is revoked; and a report lists all that it ever signed
and which tenants have it installed. Every step can be repeated: after an interruption, repeat the command. The new private key stays
here.`,
		Example: `  maestro pkg keygen --out next
  maestro pkg keys rotate --old 3f1c... --key next.key
  maestro pkg keys rotate --old 3f1c... --key next.key --kind compromised --platform -o json`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	tenantFlag(cmd, &tenant, "whose keys (default: the context's tenant)")
	f.BoolVar(&platform, "platform", false, "keys of the platform")
	f.StringVar(&old, "old", "", "id of the key to replace (required)")
	f.StringVar(&key, "key", "", "new private key file; its public key stands beside it as .pub (default: that of the CLI context)")
	f.StringVar(&kind, "kind", "superseded", "how the old key is revoked")
	f.StringVar(&reason, "reason", "rotated", "why")
	must(cmd.MarkFlagRequired("old"))
	cmd.RunE = a.inCatalog(&tenant, func(ctx context.Context, c *client.Client, tenant string, _ []string) error {
		private, public, err := a.keyPair(key)
		if err != nil {
			return err
		}
		data, err := readKeyFile(private, "private")
		if err != nil {
			return err
		}
		pem, err := readKeyFile(public, "public")
		if err != nil {
			return err
		}
		next, err := mwpkg.NewKey(pem)
		if err != nil {
			return fmt.Errorf("%s: %w", public, err)
		}
		signer, err := mwpkg.LoadSigner(data, func() ([]byte, error) { return a.password(false) })
		if err != nil {
			return fmt.Errorf("%s: %w", private, err)
		}
		r := &rotation{app: a, client: c, owner: keyOwner(tenant, platform), signer: signer, old: old, new: next.ID.String(), Old: old, New: next.ID.String(), Signed: []rotationLine{}}
		if err := r.run(ctx, string(pem), kind, reason); err != nil {
			return err
		}
		return a.print(r, r.report)
	})
	return cmd
}

func (r *rotation) run(ctx context.Context, pem, kind, reason string) error {
	packages := r.client.Packages()
	keys, err := callOnce(ctx, r.app, packages.ListKeys, &packagesv1.ListKeysRequest{Tenant: r.owner})
	if err != nil {
		return err
	}
	var old *packagesv1.TrustKey
	for _, k := range keys.GetKeys() {
		if k.GetId() == r.old && (k.GetTenant() == r.owner || r.owner == "") {
			old = k
		}
	}
	if old == nil {
		return hinted{fmt.Errorf("there is no key %s to replace", r.old), "see maestro pkg keys list; keys of the platform need --platform"}
	}
	if r.old == r.new {
		return usageError{errors.New("the new key is the old one; make another with maestro pkg keygen --out NAME")}
	}
	r.owner = old.GetTenant()
	add := &packagesv1.AddKeyRequest{Tenant: r.owner, Pem: pem, Publisher: old.GetPublisher(), Comment: "replaces " + r.old[:12]}
	if _, err := callOnce(ctx, r.app, packages.AddKey, add); err != nil {
		return err
	}
	signed, err := r.everySigned(ctx)
	if err != nil {
		return err
	}
	results := map[string]string{}
	for _, p := range signed {
		if results[lineKey(p.GetPackage())], err = r.sign(ctx, p.GetPackage()); err != nil {
			return fmt.Errorf("%s@%s: %w", p.GetPackage().GetName(), p.GetPackage().GetVersion(), err)
		}
	}
	res, err := callOnce(ctx, r.app, packages.RevokeKey, &packagesv1.RevokeKeyRequest{Tenant: r.owner, Id: r.old, Kind: kind, Reason: reason})
	if err != nil {
		return err
	}
	r.Revoked = res.GetKey().GetRevoked()
	if signed, err = r.everySigned(ctx); err != nil { // as it is now
		return err
	}
	for _, p := range signed {
		m := p.GetPackage()
		result := results[lineKey(m)]
		if result == "" {
			result = "published meanwhile; repeat the command"
		}
		r.Signed = append(r.Signed, rotationLine{
			Package: m.GetName() + "@" + m.GetVersion(), Tenant: m.GetTenant(), Digest: m.GetDigest(), Result: result, Usable: p.GetUsable(),
			Tenants: append([]string{}, p.GetTenants()...),
		})
	}
	return nil
}

func lineKey(p *packagesv1.Package) string { return p.GetTenant() + " " + p.GetDigest() }

// everySigned is all that the old key has signed, where the caller may see it.
func (r *rotation) everySigned(ctx context.Context) (all []*packagesv1.SignedPackage, err error) {
	q := &packagesv1.ReachOfKeyRequest{Id: r.old, Tenant: r.owner}
	if r.owner == "*" {
		q.Tenant = "" // of all tenants: the platform's keys count for all
	}
	for {
		res, err := callOnce(ctx, r.app, r.client.Packages().ReachOfKey, q)
		if err != nil {
			return nil, err
		}
		all = append(all, res.GetPackages()...)
		if q.Cursor = res.GetNext(); q.Cursor == "" {
			return all, nil
		}
	}
}

// sign adds the new key's signature to a package, unless it was taken back or has it.
func (r *rotation) sign(ctx context.Context, p *packagesv1.Package) (string, error) {
	if p.GetYank() == "yanked" || p.GetYank() == "blocked" {
		return "left alone: " + p.GetYank(), nil
	}
	for _, s := range p.GetSignatures() {
		if s.GetKey() == r.new {
			return "existing", nil
		}
	}
	if p.GetTenant() == "*" && r.owner != "*" {
		return "left alone: public", nil
	}
	id := p.GetDigest()
	got, err := callOnce(ctx, r.app, r.client.Packages().GetPackage, &packagesv1.GetPackageRequest{Id: id, Tenant: p.GetTenant(), Sums: true})
	if err != nil {
		return "", err
	}
	// What is signed is the content that the digest names, and nothing else that an answer may hold.
	if sum := sha256.Sum256(got.GetSums()); hex.EncodeToString(sum[:]) != id {
		return "", fmt.Errorf("the region's SHA256SUMS is not that of the digest %s", id)
	}
	made, err := mwpkg.SignSums(got.GetSums(), r.signer)
	if err != nil {
		return "", err
	}
	res, err := callOnce(ctx, r.app, r.client.Packages().SignPackage, &packagesv1.SignPackageRequest{Id: id, Tenant: p.GetTenant(), Key: r.new, Signature: made.Value})
	if err != nil {
		return "", err
	}
	return res.GetResult(), nil
}

func (r *rotation) report(w io.Writer) {
	fmt.Fprintf(w, "old key\t%s, %s\nnew key\t%s\n\n", r.Old, r.Revoked, r.New)
	fmt.Fprintln(w, "PACKAGE\tTENANT\tRESULT\tUSABLE\tINSTALLED BY")
	for _, l := range r.Signed {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Package, l.Tenant, l.Result, yesNo(l.Usable), strings.Join(l.Tenants, " "))
	}
}
