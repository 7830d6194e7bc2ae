package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
)

// Transfer moves archives of packages to and from a region in parts, each of which may be tried again.
type Transfer struct {
	Client *Client
	// Timeout bounds each part, retries included.
	Timeout time.Duration
	// Progress is told how many bytes of how many are there after each part; nil for nobody.
	Progress func(done, size int)
}

func (t *Transfer) progress(done, size int) {
	if t.Progress != nil {
		t.Progress(done, size)
	}
}

// uploadBegins is how often an upload begins again that the region has forgotten meanwhile.
const uploadBegins = 3

// Publish uploads an archive and publishes it; what has arrived before is not sent again.
func (t *Transfer) Publish(ctx context.Context, tenant string, archive []byte) (*packagesv1.PublishResponse, error) {
	sum := sha256.Sum256(archive)
	name, size := hex.EncodeToString(sum[:]), uint32(len(archive))
	for try := 1; ; try++ {
		err := t.upload(ctx, tenant, name, archive)
		if err == nil {
			break
		}
		if try == uploadBegins || Reason(err) != "upload_unknown" {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	res, err := t.Client.Packages().Publish(ctx, connect.NewRequest(&packagesv1.PublishRequest{Tenant: tenant, Archive: name, Size: size}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (t *Transfer) upload(ctx context.Context, tenant, name string, archive []byte) error {
	part := func(call func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, t.Timeout)
		defer cancel()
		return call(ctx)
	}
	var at *packagesv1.BeginUploadResponse
	err := part(func(ctx context.Context) error {
		res, err := t.Client.Packages().BeginUpload(ctx, connect.NewRequest(&packagesv1.BeginUploadRequest{Tenant: tenant, Archive: name, Size: uint32(len(archive))}))
		if err == nil {
			at = res.Msg
		}
		return err
	})
	if err != nil {
		return err
	}
	for at.GetNext() < at.GetChunks() {
		from := int(at.GetNext()) * int(at.GetChunkBytes())
		to := min(len(archive), from+int(at.GetChunkBytes()))
		err := part(func(ctx context.Context) error {
			res, err := t.Client.Packages().UploadChunk(ctx, connect.NewRequest(&packagesv1.UploadChunkRequest{
				Tenant: tenant, Archive: name, Size: uint32(len(archive)), Generation: at.GetGeneration(), Chunk: at.GetNext(), Data: archive[from:to],
			}))
			if err == nil {
				at.Next = res.Msg.GetNext()
			}
			return err
		})
		if err != nil {
			return err
		}
		t.progress(to, len(archive))
	}
	return nil
}

// Download writes what is missing of a package's archive behind the bytes that are there already, whose
// number is from. archive, when not empty, is the SHA-256 of the file that they are of.
func (t *Transfer) Download(ctx context.Context, id, tenant, archive string, from int, w io.Writer) (*packagesv1.DownloadResponse, error) {
	for {
		part, cancel := context.WithTimeout(ctx, t.Timeout)
		res, err := t.Client.Packages().Download(part, connect.NewRequest(&packagesv1.DownloadRequest{Id: id, Tenant: tenant, Offset: uint32(from), Archive: archive}))
		cancel()
		if err != nil {
			return nil, err
		}
		m := res.Msg
		if _, err := w.Write(m.GetData()); err != nil {
			return nil, fmt.Errorf("write the package: %w", err)
		}
		archive = m.GetArchive()
		from += len(m.GetData())
		t.progress(from, int(m.GetSize()))
		if from >= int(m.GetSize()) || len(m.GetData()) == 0 {
			return m, nil
		}
	}
}

// Reason is the stable code of a failed call, or empty.
func Reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
