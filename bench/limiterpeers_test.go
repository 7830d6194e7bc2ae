package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/maestro-conductor/maestro/limiter/client"
)

// answering is a connection whose other side takes what is written and answers with these bytes.
func answering(t *testing.T, replies string) (*redisConn, <-chan string) {
	t.Helper()
	near, far := net.Pipe()
	asked := make(chan string, 1)
	go func() {
		defer far.Close()
		buf := make([]byte, 64<<10)
		n, _ := far.Read(buf)
		asked <- string(buf[:n])
		_, _ = far.Write([]byte(replies))
	}()
	t.Cleanup(func() { _ = near.Close() })
	return &redisConn{conn: near, in: bufio.NewReader(near)}, asked
}

func bound(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestAPipelineIsAnsweredCheckByCheck(t *testing.T) {
	c, asked := answering(t, "*2\r\n:0\r\n:0\r\n*2\r\n:1\r\n:7\r\n*2\r\n:2\r\n:9\r\n-BUSY later\r\n:1\r\n")
	batch := []client.Request{{Tenant: "a", Key: "x"}, {Tenant: "a", Key: "y"}, {Tenant: "b", Key: "x"}, {Tenant: "b", Key: "y"}}
	answers, err := c.decide(bound(t), "cafe", batch, true)
	if err != nil {
		t.Fatal(err)
	}
	if !answers[0].Allow || answers[0].Err != nil {
		t.Errorf("the first: %+v", answers[0])
	}
	if a := answers[1]; a.Allow || a.LimitID != keyLimit || a.RetryAfterMs != 7 {
		t.Errorf("denied by its key: %+v", a)
	}
	if a := answers[2]; a.Allow || a.LimitID != tenantLimit || a.RetryAfterMs != 9 {
		t.Errorf("denied by its tenant: %+v", a)
	}
	if a := answers[3]; a.Err == nil || a.Allow {
		t.Errorf("failed: %+v", a)
	}
	want := "*10\r\n$7\r\nEVALSHA\r\n$4\r\ncafe\r\n$1\r\n2\r\n$5\r\nk:a/x\r\n$3\r\nt:a\r\n$1\r\n1\r\n$5\r\n10000\r\n$4\r\n3000\r\n$2\r\n10\r\n$6\r\n100000\r\n"
	if got := <-asked; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$5\r\n30000\r\n") {
		t.Errorf("asked %q", got)
	}
}

func TestABatchThatNoReplicaHasFails(t *testing.T) {
	c, _ := answering(t, "*2\r\n:0\r\n:0\r\n:0\r\n")
	if _, err := c.decide(bound(t), "cafe", make([]client.Request, 1), true); !errors.Is(err, errShape) {
		t.Errorf("got %v", err)
	}
}

func TestRepliesOfRedis(t *testing.T) {
	for _, tc := range []struct {
		text string
		want any
	}{{"+OK\r\n", "OK"}, {"$5\r\na\r\nbc\r\n", "a\r\nbc"}, {":-3\r\n", int64(-3)}, {"$0\r\n\r\n", ""}} {
		c := &redisConn{in: bufio.NewReader(strings.NewReader(tc.text))}
		if got, err := c.reply(); err != nil || got != tc.want {
			t.Errorf("%q: %v, err %v", tc.text, got, err)
		}
	}
	for _, text := range []string{"\n", "?1\r\n", ":x\r\n", "$-1\r\n", "$4\r\nab"} {
		c := &redisConn{in: bufio.NewReader(strings.NewReader(text))}
		if got, err := c.reply(); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestACheckPassesWhenNeitherDescriptorIsOver(t *testing.T) {
	under := &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK, CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{}}
	over := &rlsv3.RateLimitResponse_DescriptorStatus{
		Code: rlsv3.RateLimitResponse_OVER_LIMIT, CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{}, DurationUntilReset: durationpb.New(time.Second),
	}
	type statuses = []*rlsv3.RateLimitResponse_DescriptorStatus
	got, err := ratelimitAnswers(&rlsv3.RateLimitResponse{Statuses: statuses{under, under, over, under, under, over, over, over}}, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i, limit := range []string{"", keyLimit, tenantLimit, keyLimit} {
		if got[i].Allow != (limit == "") || got[i].LimitID != limit || limit != "" && got[i].RetryAfterMs != 1000 {
			t.Errorf("check %d: %+v", i, got[i])
		}
	}
	for _, wrong := range []statuses{{under}, {under, {Code: rlsv3.RateLimitResponse_OK}}} {
		if _, err := ratelimitAnswers(&rlsv3.RateLimitResponse{Statuses: wrong}, 1); !errors.Is(err, errShape) {
			t.Errorf("%v: got %v", wrong, err)
		}
	}
	m := ratelimitMessage([]client.Request{{Tenant: "a", Key: "x"}, {Tenant: "b", Key: "y"}})
	var asked []string
	for _, d := range m.GetDescriptors() {
		asked = append(asked, d.GetEntries()[0].GetKey()+"="+d.GetEntries()[0].GetValue())
	}
	if all := strings.Join(asked, " "); all != "key=a/x tenant=a key=b/y tenant=b" {
		t.Errorf("asked for %s", all)
	}
}

// TestTheWindowsOfASecondAreAudited: what two windows admit at their border is in order, and one token
// more is not.
func TestTheWindowsOfASecondAreAudited(t *testing.T) {
	for extra, want := range []float64{0, 1} {
		a := newAudit(1, 0)
		a.window = 2 * time.Second
		a.byKey[0].all = []admission{
			{asked: time.Second, answered: time.Second, n: keyRate}, {asked: time.Second, answered: time.Second, n: keyRate + int64(extra)},
		}
		if over, _ := a.verdict(windowBounds); over != want {
			t.Errorf("%d more: %v tokens too many, want %v", extra, over, want)
		}
	}
}

func TestAPeerThatCannotBeHadIsSkipped(t *testing.T) {
	for _, o := range []options{{}, {redis: filepath.Join(t.TempDir(), "none"), ratelimit: "none"}} {
		b := &bench{options: o, dir: t.TempDir()}
		for name, err := range map[string]error{
			"redis": b.measureGCRA(t.Context(), nil, "redis", false), "ratelimit": b.measureRatelimit(t.Context(), nil, "ratelimit"),
		} {
			if absent := (unavailableError{}); !errors.As(err, &absent) {
				t.Errorf("%s of %+v: %v", name, o, err)
			}
		}
	}
	r, err := newReport("", options{})
	if err != nil {
		t.Fatal(err)
	}
	r.skipped("limiter.peer.redis", errNoRedis)
	var table bytes.Buffer
	if err := r.close(&table); err != nil || !strings.Contains(table.String(), "skipped: "+errNoRedis.Error()) {
		t.Errorf("err %v, table %s", err, table.String())
	}
}
