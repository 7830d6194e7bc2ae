package storetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/testport"
)

const (
	accessKey = "maestro"
	secretKey = "of-a-test-server"
	bucket    = "segments"
)

// SeaweedFS runs a real S3 server with an empty bucket until the test ends, or end is called. The environment variable
// SEAWEEDFS names its binary; make interop sets it.
func SeaweedFS(t *testing.T) (conf objectstore.S3Config, end func()) {
	t.Helper()
	binary := os.Getenv("SEAWEEDFS")
	if binary == "" {
		t.Fatal("SEAWEEDFS names no binary; run make interop")
	}
	dir := t.TempDir()
	identities := filepath.Join(dir, "s3.json")
	must(t, os.WriteFile(identities, fmt.Appendf(nil, `{"identities": [{"name": "maestro",
		"credentials": [{"accessKey": %q, "secretKey": %q}], "actions": ["Admin", "Read", "Write", "List"]}]}`, accessKey, secretKey), 0o600))
	data := filepath.Join(dir, "data")
	must(t, os.Mkdir(data, 0o700))
	args := []string{
		"-logtostderr", "server", "-dir=" + data, "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.config=" + identities,
		"-s3.autoCreateBucket=false", "-master.volumeSizeLimitMB=64", "-volume.max=20",
	}
	var endpoint string
	for _, of := range []string{"master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port"} {
		endpoint = testport.Address(t)
		_, port, err := net.SplitHostPort(endpoint)
		must(t, err)
		args = append(args, "-"+of+"="+port)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(syscall.SIGKILL) // it may have ended
		_ = cmd.Wait()
		_ = log.Close()
	}
	t.Cleanup(end)
	conf = objectstore.S3Config{
		Endpoint: endpoint, Insecure: true, Region: "us-east-1", Bucket: bucket, Prefix: "maestro/cold", AccessKey: accessKey, SecretKey: secretKey,
	}
	client, err := minio.New(endpoint, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: conf.Region})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		err := client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: conf.Region})
		if err == nil || minio.ToErrorResponse(err).Code == "BucketAlreadyOwnedByYou" {
			break
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("the S3 server does not serve: %v\n%s", err, said[max(0, len(said)-2000):])
		case <-time.After(100 * time.Millisecond):
		}
	}
	return conf, end
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
