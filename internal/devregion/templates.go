package devregion

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/sigstore/sigstore/pkg/signature"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/pkgstore/templates"
)

const (
	// templatesTimeout bounds one call to the catalog, retries included.
	templatesTimeout = 30 * time.Second
	// levelPoll is how often a region is asked for its catalog while not all of its nodes have been heard of.
	levelPoll = 100 * time.Millisecond
	// keyComment stands with the key in the catalog.
	keyComment = "development key of maestro dev; its password is empty"
)

// PublishTemplates makes the packages that come with Maestro public in the region's catalog, as far as their
// content is not there yet, and returns how many are there. They are signed by a development key, made when it
// is needed first: TemplatesKey(dir), whose password is empty, and its public half beside it. The region trusts
// it for the publisher of the templates only. It may be interrupted and repeated.
func (r *Region) PublishTemplates(ctx context.Context) (int, error) {
	c, err := r.Client()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	there, err := publishedTemplates(ctx, c)
	if err != nil {
		return 0, fmt.Errorf("devregion: list the public packages: %w", err)
	}
	var missing []*mwpkg.Package
	all := templates.All()
	for _, t := range all {
		p, err := t.Build()
		if err != nil {
			return 0, fmt.Errorf("devregion: %w", err)
		}
		if there[p.Manifest.Ref().String()] != p.Digest.String() {
			missing = append(missing, p)
		}
	}
	count := len(all) - len(missing)
	if len(missing) == 0 {
		return count, nil
	}
	signer, err := r.trustTemplatesKey(ctx, c)
	if err != nil {
		return count, err
	}
	var failed error
	for _, p := range missing {
		if err := publishSigned(ctx, c, p, signer); err != nil {
			failed = errors.Join(failed, fmt.Errorf("devregion: publish %s: %w", p.Manifest.Ref(), err))
			continue
		}
		count++
	}
	return count, failed
}

// publishedTemplates are the digests of the public packages of the templates' publisher, by name and version.
func publishedTemplates(ctx context.Context, c *client.Client) (map[string]string, error) {
	there := map[string]string{}
	r := &packagesv1.ListPackagesRequest{Tenant: pkgstore.Public, Q: templates.Publisher + "/", Limit: pkgstore.PageMax}
	for {
		res, err := listOnce(ctx, c, r)
		if client.Reason(err) == "level_too_low" { // a node has not been heard of yet
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(levelPoll):
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		for _, p := range res.GetPackages() {
			there[p.GetName()+"@"+p.GetVersion()] = p.GetDigest()
		}
		if r.Cursor = res.GetNext(); r.Cursor == "" {
			return there, nil
		}
	}
}

func listOnce(ctx context.Context, c *client.Client, r *packagesv1.ListPackagesRequest) (*packagesv1.ListPackagesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, templatesTimeout)
	defer cancel()
	res, err := c.Packages().ListPackages(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func publishSigned(ctx context.Context, c *client.Client, p *mwpkg.Package, signer signature.Signer) error {
	signed, err := p.Sign(signer)
	if err != nil {
		return err
	}
	archive, err := signed.Bytes()
	if err != nil {
		return err
	}
	_, err = (&client.Transfer{Client: c, Timeout: templatesTimeout}).Publish(ctx, pkgstore.Public, archive)
	return err
}

// TemplatesKey is the private key, in a region's folder, that signs the templates.
func TemplatesKey(dir string) string { return filepath.Join(dir, "templates.key") }

// TemplatesPublicKey is the public half of TemplatesKey.
func TemplatesPublicKey(dir string) string { return filepath.Join(dir, "templates.pub") }

// trustTemplatesKey opens the development key, or makes it, and has the platform trust it.
func (r *Region) trustTemplatesKey(ctx context.Context, c *client.Client) (signature.Signer, error) {
	path, empty := TemplatesKey(r.opts.Dir), []byte{}
	private, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var public []byte
		if private, public, err = mwpkg.GenerateKey(empty); err == nil {
			// The private key last: where it is, its public half is too.
			err = errors.Join(client.WriteFile(TemplatesPublicKey(r.opts.Dir), public), client.WriteFile(path, private))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("devregion: the key of the templates: %w", err)
	}
	signer, err := mwpkg.LoadSigner(private, func() ([]byte, error) { return empty, nil })
	if err != nil {
		return nil, fmt.Errorf("devregion: %s: %w; remove it, and the next start makes another", path, err)
	}
	public, err := os.ReadFile(TemplatesPublicKey(r.opts.Dir))
	if err != nil {
		return nil, fmt.Errorf("devregion: the key of the templates: %w; remove %s too, and the next start makes another", err, path)
	}
	ctx, cancel := context.WithTimeout(ctx, templatesTimeout)
	defer cancel()
	_, err = c.Packages().AddKey(ctx, connect.NewRequest(&packagesv1.AddKeyRequest{
		Tenant: pkgstore.Public, Pem: string(public), Publisher: templates.Publisher, Comment: keyComment,
	}))
	if err != nil {
		return nil, fmt.Errorf("devregion: the region does not trust %s: %w; remove that file, and the next start makes another key", path, err)
	}
	return signer, nil
}
