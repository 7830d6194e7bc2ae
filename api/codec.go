package api

import (
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// frame is a request message, or why it could not be read. Connect gives an error of a codec
// neither a reason nor a way to add one, so the codecs below never fail on a request: they
// leave the fault in the frame, and the handler returns it like any other.
type frame[T any] struct {
	msg   T
	fault *fault
}

func (f *frame[T]) message() proto.Message { return any(&f.msg).(proto.Message) }
func (f *frame[T]) refuse(r *fault)        { f.fault = r }

type framed interface {
	message() proto.Message
	refuse(*fault)
}

// jsonMarshal writes every field, so that "allow": false and empty lists are there to read.
var jsonMarshal = protojson.MarshalOptions{EmitDefaultValues: true}

// jsonCodec is protojson that writes defaults and refuses unknown fields.
type jsonCodec struct{ name string }

func (c jsonCodec) Name() string { return c.name }

func (c jsonCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend lets Connect reuse its buffers.
func (jsonCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a protobuf message", message)
	}
	return jsonMarshal.MarshalAppend(dst, m)
}

func (jsonCodec) Unmarshal(data []byte, message any) error {
	return unmarshal(data, message, readProtoJSON)
}

func readProtoJSON(data []byte, m proto.Message) error {
	if len(data) == 0 {
		return errors.New("the body is empty; the smallest JSON message is {}")
	}
	return protojson.Unmarshal(data, m)
}

// protoCodec is binary protobuf. Unknown fields are kept out of the way as protobuf means
// them: an older server reads a newer client's message.
type protoCodec struct{}

func (protoCodec) Name() string { return "proto" }

func (c protoCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend lets Connect reuse its buffers.
func (protoCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a protobuf message", message)
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

func (protoCodec) Unmarshal(data []byte, message any) error {
	return unmarshal(data, message, proto.Unmarshal)
}

func unmarshal(data []byte, message any, read func([]byte, proto.Message) error) error {
	f, ok := message.(framed)
	if !ok {
		return fmt.Errorf("%T is not a frame", message)
	}
	if err := read(data, f.message()); err != nil {
		f.refuse(malformed(f.message(), err))
	}
	return nil
}

func malformed(m proto.Message, err error) *fault {
	return refuse(reasonMessageMalformed, "the body is not a %s: %s", m.ProtoReflect().Descriptor().FullName(), plainProtoError(err))
}

// plainProtoError takes away the prefix that protobuf varies on purpose.
func plainProtoError(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(text, "proto: ")
}

// codecs replace Connect's own of the same names.
func codecs() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithCodec(protoCodec{}),
		connect.WithCodec(jsonCodec{name: "json"}),
		connect.WithCodec(jsonCodec{name: "json; charset=utf-8"}),
	}
}
