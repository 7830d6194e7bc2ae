package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/disposition"
)

func (a *app) dispositionCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "disposition", Short: "Verify what retention has disposed of"})
	cmd.AddCommand(a.dispositionVerifyCommand())
	return cmd
}

func (a *app) dispositionVerifyCommand() *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use:   "verify --key FILE [FILE...]",
		Short: "Verify signed records of dispositions, without a region",
		Long: `Verify records of dispositions, as exported, with the region's public key alone: no node is asked. A record
tells what was disposed of one tenant in one step: kind, rule, policy version, count, times, and the SHA-256 of
the ids, newest first, each followed by a line feed. Without a file, records come from the standard input.

The status is 1 when a record is not what was signed, or was signed with another key.`,
		Example: `  maestro export kind:disposition > records.jsonl
  maestro index disposition verify --key disposition.pub records.jsonl`,
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "the region's public key, disposition.pub; it may hold several")
	cmd.RunE = a.action(func(_ context.Context, files []string) error {
		if keyFile == "" {
			return usageError{errors.New("--key is missing; name the region's disposition.pub")}
		}
		pem, err := os.ReadFile(filepath.Clean(keyFile))
		if err != nil {
			return err
		}
		v := verifier{}
		if v.keys, err = disposition.ParsePublicKeys(pem); err != nil {
			return err
		}
		if len(files) == 0 {
			if err := v.read("standard input", a.stdin); err != nil {
				return err
			}
		}
		for _, name := range files {
			f, err := os.Open(filepath.Clean(name))
			if err != nil {
				return err
			}
			if err := errors.Join(v.read(name, f), f.Close()); err != nil {
				return err
			}
		}
		if err := a.print(v.result(), v.print); err != nil {
			return err
		}
		if v.bad > 0 {
			return fmt.Errorf("%d of %d records cannot be trusted", v.bad, len(v.records))
		}
		return nil
	})
	return cmd
}

// verifier reads records.
type verifier struct {
	keys    []ed25519.PublicKey
	records []verified
	bad     int
}

// verified is what became of one record.
type verified struct {
	At     string              `json:"at"`
	ID     string              `json:"id"`
	Valid  bool                `json:"valid"`
	Reason string              `json:"reason,omitempty"`
	Record *disposition.Record `json:"record,omitempty"`
}

func (v *verifier) read(name string, r io.Reader) error {
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if len(strings.TrimSpace(string(line))) > 0 {
			v.line(fmt.Sprintf("%s:%d", name, n), line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
}

func (v *verifier) line(at string, line []byte) {
	out := verified{At: at}
	var d provenancev1.Document
	err := protojson.Unmarshal(line, &d)
	if err == nil {
		out.ID = d.GetId()
		out.Record, err = v.verify(&d)
	}
	if out.Valid = err == nil; err != nil {
		out.Reason = err.Error()
		v.bad++
	}
	v.records = append(v.records, out)
}

// verify checks the signature, and that the document says of the record what the record says.
func (v *verifier) verify(d *provenancev1.Document) (*disposition.Record, error) {
	if d.GetKind() != index.KindDisposition {
		return nil, fmt.Errorf("it is of kind %q, not a record of a disposition", d.GetKind())
	}
	attributes := d.GetAttributes()
	signature, err := base64.StdEncoding.DecodeString(attributes[index.AttributeSignature])
	if err != nil {
		return nil, disposition.ErrSignature
	}
	r, err := disposition.Verify(v.keys, attributes[index.AttributeKey], []byte(attributes[index.AttributeRecord]), signature)
	if err == nil && r.Tenant != d.GetTenant() {
		err = fmt.Errorf("the record is of tenant %s, the document of %s", r.Tenant, d.GetTenant())
	}
	return r, err
}

func (v *verifier) result() any {
	return map[string]any{"records": v.records, "bad": v.bad}
}

func (v *verifier) print(w io.Writer) {
	fmt.Fprintf(w, "RECORD\tTENANT\tKIND\tCOUNT\tRULE\tDISPOSED\tVERDICT\n")
	for _, r := range v.records {
		if !r.Valid {
			fmt.Fprintf(w, "%s\t\t\t\t\t\tBAD: %s\n", r.At, r.Reason)
			continue
		}
		for _, l := range r.Record.Lines {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s %s\t%s\tvalid\n", r.At, r.Record.Tenant, l.Kind, l.Count, l.Rule, l.Age, r.Record.DisposedAt)
		}
	}
}
