package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Config is where a bucket is.
type S3Config struct {
	// Endpoint is HOST or HOST:PORT; Insecure speaks HTTP instead of HTTPS to it.
	Endpoint string
	Insecure bool
	Region   string
	Bucket   string
	// Prefix comes before the names of all objects, with a '/' behind it; it may be empty.
	Prefix string
	// AccessKey and SecretKey identify who asks; both empty is anonymous.
	AccessKey, SecretKey string
}

// S3 keeps objects in a bucket of an S3 service.
type S3 struct {
	client *minio.Client
	conf   S3Config
}

// NewS3 uses a bucket that must exist. It asks for nothing yet.
func NewS3(c S3Config) (*S3, error) {
	client, err := minio.New(c.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""), Secure: !c.Insecure, Region: c.Region,
		// Who reads has a time limit of its own, and says at once what is missing.
		MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("objectstore: %w", err)
	}
	return &S3{client: client, conf: c}, nil
}

func (s *S3) key(name string) string {
	if s.conf.Prefix == "" {
		return name
	}
	return path.Join(s.conf.Prefix, name)
}

func (s *S3) failed(op, name string, err error) error {
	r := minio.ToErrorResponse(err)
	switch {
	case r.Code == minio.NoSuchKey:
		return fmt.Errorf("%s %s: %w", op, name, ErrNotFound)
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s %s: %w", op, name, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s %s: %w: %w", op, name, ErrUnavailable, err)
}

// Put implements Store.
func (s *S3) Put(ctx context.Context, name string, r io.ReaderAt, size int64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	_, err := s.client.PutObject(ctx, s.conf.Bucket, s.key(name), io.NewSectionReader(r, 0, size), size,
		minio.PutObjectOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return s.failed("put", name, err)
	}
	return nil
}

// ReadAt implements Store.
func (s *S3) ReadAt(ctx context.Context, name string, b []byte, at int64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(b) == 0 {
		return nil
	}
	var o minio.GetObjectOptions
	if err := o.SetRange(at, at+int64(len(b))-1); err != nil {
		return s.failed("read", name, err)
	}
	body, err := s.client.GetObject(ctx, s.conf.Bucket, s.key(name), o)
	if err != nil {
		return s.failed("read", name, err)
	}
	_, err = io.ReadFull(body, b)
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return s.failed("read", name, err)
	}
	return nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	err := s.client.RemoveObject(ctx, s.conf.Bucket, s.key(name), minio.RemoveObjectOptions{})
	if err == nil {
		return nil
	}
	if err = s.failed("delete", name, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string, use func(name string, modified time.Time) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	own := ""
	if s.conf.Prefix != "" {
		own = path.Clean(s.conf.Prefix) + "/"
	}
	for o := range s.client.ListObjects(ctx, s.conf.Bucket, minio.ListObjectsOptions{Prefix: own + prefix, Recursive: true}) {
		if o.Err != nil {
			return s.failed("list", prefix, o.Err)
		}
		if err := use(strings.TrimPrefix(o.Key, own), o.LastModified); err != nil {
			return err
		}
	}
	return nil
}
