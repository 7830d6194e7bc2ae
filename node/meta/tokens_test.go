package meta

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

func TestTokenLifecycle(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	secret, created, err := s.CreateToken(t.Context(), api.Token{
		Tenant: "acme", Role: api.RoleRunner, Expires: r.now.Add(time.Hour), Description: "build farm",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !created.Created.Equal(r.now) || created.Revoked || created.Description != "build farm" || !created.Expires.Equal(r.now.Add(time.Hour)) {
		t.Errorf("created %+v", created)
	}
	admitted := func(when string) {
		t.Helper()
		p, err := s.Authenticate(t.Context(), secret)
		if want := (api.Principal{ID: created.ID, Tenant: "acme", Role: api.RoleRunner}); err != nil || p != want {
			t.Errorf("%s: %+v, %v; want %+v", when, p, err, want)
		}
	}
	admitted("at once")
	r.meta.Restart()
	s = r.service()
	admitted("after a restart")
	r.now = r.now.Add(time.Hour - 1)
	admitted("just before the expiry")
	r.now = r.now.Add(1)
	_, err = s.Authenticate(t.Context(), secret)
	wantError(t, "at the expiry", err, api.ErrTokenExpired)

	r.now = r.now.Add(-time.Minute)
	admitted("before the expiry again")
	for range 2 { // twice is no error
		if err := s.RevokeToken(t.Context(), created.ID); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Authenticate(t.Context(), secret)
	wantError(t, "once revoked", err, api.ErrTokenRevoked)
	r.meta.Restart()
	s = r.service()
	_, err = s.Authenticate(t.Context(), secret)
	wantError(t, "once revoked, after a restart", err, api.ErrTokenRevoked)
	wantError(t, "revoking what does not exist", s.RevokeToken(t.Context(), "0123456789abcdef"), api.ErrTokenUnknown)
	wantError(t, "revoking nonsense", s.RevokeToken(t.Context(), "x"), api.ErrTokenUnknown)
}

// Whoever does not have the secret learns nothing but that the token is unknown.
func TestForgedTokens(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	one, info, err := s.CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := s.CreateToken(t.Context(), api.Token{Tenant: "*", Role: api.RoleReader})
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := newRegion(t, regionRules).service().CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	secretAt := len(tokenPrefix) + 2*tokenIDBytes + 1
	forged := map[string]string{
		"empty":                     "",
		"of another region":         foreign,
		"with another's secret":     one[:secretAt] + other[secretAt:],
		"truncated":                 one[:len(one)-1],
		"extended":                  one + "0",
		"in upper case":             tokenPrefix + strings.ToUpper(one[len(tokenPrefix):]),
		"without the prefix":        "xyz_" + one[len(tokenPrefix):],
		"with two underscores":      one[:secretAt] + "_" + one[secretAt+1:],
		"with the hash as a secret": one[:secretAt] + strings.Repeat("0", 2*tokenSecretBytes),
		"only the id":               info.ID,
		"not text":                  "mct_\x00\xff",
	}
	check := func(when string) {
		for what, text := range forged {
			_, err := s.Authenticate(t.Context(), text)
			wantError(t, "a token "+what+when, err, api.ErrTokenUnknown)
		}
	}
	check("")
	if err := s.RevokeToken(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	check(", of a revoked id")
}

// The secret is neither stored nor logged: it occurs in no row and no command.
func TestSecretIsNotStored(t *testing.T) {
	r := newRegion(t, regionRules)
	watch := &commands{region: r}
	s := NewService(Options{Groups: watch, Group: metaGroup, Machine: r.meta.Machine().(*Machine), Region: "us-west", Clock: func() time.Time { return r.now }})
	text, _, err := s.CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := splitToken(text)
	if len(watch.all) == 0 || bytes.Contains(bytes.Join(watch.all, nil), []byte(secret)) {
		t.Errorf("the secret occurs in one of %d commands", len(watch.all))
	}
}

func TestNewTokensAreValidated(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	for what, token := range map[string]api.Token{
		"no tenant":             {Role: api.RoleAdmin},
		"a malformed tenant":    {Tenant: "Acme", Role: api.RoleAdmin},
		"no role":               {Tenant: "acme"},
		"an unknown role":       {Tenant: "acme", Role: "root"},
		"an expiry in the past": {Tenant: "acme", Role: api.RoleAdmin, Expires: r.now},
		"an expiry too far":     {Tenant: "acme", Role: api.RoleAdmin, Expires: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)},
		"a long description":    {Tenant: "acme", Role: api.RoleAdmin, Description: strings.Repeat("x", descriptionMax+1)},
		"a broken description":  {Tenant: "acme", Role: api.RoleAdmin, Description: "\xff"},
	} {
		_, _, err := s.CreateToken(t.Context(), token)
		wantError(t, what, err, limiter.ErrInvalid)
	}
	if all, err := s.ListTokens(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%d tokens, %v; want none", len(all), err)
	}
}

func TestTokensAreListedNewestFirst(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	for i := range 3 {
		if _, _, err := s.CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleReader, Description: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		r.now = r.now.Add(time.Second)
	}
	all, err := s.ListTokens(t.Context())
	if err != nil || len(all) != 3 || all[0].Description != "2" || all[2].Description != "0" {
		t.Errorf("listed %+v, %v; want 2, 1, 0", all, err)
	}
}

// A full region takes a new token in the place of one that is dead, and refuses otherwise.
func TestFullRegionReplacesDeadTokens(t *testing.T) {
	r := newRegion(t, smallRules)
	s := r.service()
	create := func(expires time.Time) (string, string, error) {
		secret, info, err := s.CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleReader, Expires: expires})
		return secret, info.ID, err
	}
	var secrets, ids []string
	for i := range 5 {
		expires := time.Time{}
		if i == 3 {
			expires = r.now.Add(time.Hour)
		}
		secret, id, err := create(expires)
		if err != nil {
			t.Fatal(err)
		}
		secrets, ids = append(secrets, secret), append(ids, id)
	}
	_, _, err := create(time.Time{})
	wantError(t, "a sixth token", err, limiter.ErrInvalid)
	if err := s.RevokeToken(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := create(time.Time{}); err != nil {
		t.Errorf("in the place of a revoked token: %v", err)
	}
	_, err = s.Authenticate(t.Context(), secrets[1])
	wantError(t, "the token that made room", err, api.ErrTokenUnknown)
	_, _, err = create(time.Time{})
	wantError(t, "one more", err, limiter.ErrInvalid)
	r.now = r.now.Add(time.Hour)
	r.meta.Wall = r.now // expiry in the machine goes by the leader's clock
	if _, _, err := create(time.Time{}); err != nil {
		t.Errorf("in the place of an expired token: %v", err)
	}
	for _, i := range []int{0, 2, 4} {
		if _, err := s.Authenticate(t.Context(), secrets[i]); err != nil {
			t.Errorf("token %d, which is alive: %v", i, err)
		}
	}
	r.meta.Restart()
	s = r.service()
	if all, err := s.ListTokens(t.Context()); err != nil || len(all) != 5 {
		t.Errorf("%d tokens, %v; want 5", len(all), err)
	}
}

func TestAuthenticateBesideChanges(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	secret, _, err := s.CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleReader})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Authenticate(t.Context(), secret); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		_, info, err := s.CreateToken(t.Context(), api.Token{Tenant: "acme", Role: api.RoleReader})
		if err == nil {
			err = s.RevokeToken(t.Context(), info.ID)
		}
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	readers.Wait()
}

func FuzzAuthenticate(f *testing.F) {
	f.Add("mct_0123456789abcdef_" + strings.Repeat("0", 64))
	f.Add("mct__")
	s := newRegion(f, regionRules).service()
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := s.Authenticate(t.Context(), text); err == nil {
			t.Fatalf("%q admits to a region without tokens", text)
		}
	})
}

// commands notes what is proposed.
type commands struct {
	*region
	all [][]byte
}

func (c *commands) Propose(ctx context.Context, g raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	c.all = append(c.all, cmd.Data)
	return c.region.Propose(ctx, g, cmd)
}
