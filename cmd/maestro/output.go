package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// print shows a result: as JSON or YAML, or by table for people. A proto message follows
// protojson with defaults.
func (a *app) print(result any, table func(w io.Writer)) error {
	if a.output == "" || a.output == "table" {
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		table(w)
		return w.Flush()
	}
	data, err := marshal(result)
	if err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	if a.output == "yaml" {
		if data, err = toYAML(data); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
	}
	_, err = a.stdout.Write(data)
	return err
}

// marshal returns indented JSON; small results take one line.
func marshal(result any) ([]byte, error) {
	var data []byte
	var err error
	if m, ok := result.(proto.Message); ok {
		data, err = protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	} else {
		data, err = json.Marshal(result)
	}
	if err != nil {
		return nil, err
	}
	var line, out bytes.Buffer
	// protojson puts blanks in or not, by the build; what it came to must not depend on them.
	err = json.Compact(&line, data)
	if err == nil && line.Len() <= 80 {
		out = line
	} else if err == nil {
		err = json.Indent(&out, line.Bytes(), "", "  ")
	}
	out.WriteByte('\n')
	return out.Bytes(), err
}

// toYAML writes JSON, which is YAML already, in YAML's own style.
func toYAML(data []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	restyle(&doc)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	err := enc.Encode(&doc)
	return out.Bytes(), err
}

func restyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		restyle(c)
	}
}
