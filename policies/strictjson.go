package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// strictUnmarshal reads JSON into v, in which every key must be a field by its exact name. data has passed checkJSON.
func strictUnmarshal(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	// The decoder takes keys in any case; others do not. So what it read must have the same keys again.
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var have, want any
	if err := errors.Join(json.Unmarshal(data, &have), json.Unmarshal(again, &want)); err != nil {
		return err
	}
	return sameKeys(have, want)
}

// sameKeys refuses keys of have that want does not hold where have does. Null may stand for what is left out.
func sameKeys(have, want any) error {
	switch h := have.(type) {
	case map[string]any:
		w, _ := want.(map[string]any)
		for k, v := range h {
			other, ok := w[k]
			if !ok && !isEmpty(v) {
				return refuse(CodeData, "", "the key %s is not written so", quoted(k))
			}
			if err := sameKeys(v, other); ok && err != nil {
				return err
			}
		}
	case []any:
		w, _ := want.([]any)
		for i := range h {
			if i < len(w) {
				if err := sameKeys(h[i], w[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// isEmpty is true for what omitempty leaves out.
func isEmpty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case string:
		return x == ""
	case float64:
		return x == 0
	case bool:
		return !x
	case []any:
		return len(x) == 0
	case map[string]any:
		return len(x) == 0
	}
	return false
}

// checkJSON refuses what is not exactly one JSON value, and repeated keys, of which readers take different ones.
func checkJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more follows the JSON value")
	}
	return nil
}

// maxJSONDepth bounds how deep values lie in each other.
const maxJSONDepth = 32

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxJSONDepth {
		return errors.New("the JSON is too deep")
	}
	token, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	keys := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if keys[name] {
				return refuse(CodeDuplicate, "", "the key %s is there twice", quoted(name))
			}
			keys[name] = true
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
