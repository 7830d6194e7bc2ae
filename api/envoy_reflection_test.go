package api

import (
	"testing"

	"connectrpc.com/grpcreflect"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/maestro-conductor/maestro/limiter"
)

// A client that knows Envoy's service from reflection alone, as grpcurl does, can call it.
func TestEnvoyByReflection(t *testing.T) {
	e := newEnvoyEnv(t)
	e.services.decision = limiter.Decision{Allow: true, Levels: []limiter.Level{{LimitID: "acme-api", Kind: limiter.KindTokenBucket, Limit: 20, Remaining: 19}}}
	secret := secretOf("acme", RoleRunner)
	stream := grpcreflect.NewClient(e.client(secret), e.url).NewStream(t.Context())
	defer stream.Close()
	found, err := stream.FileContainingSymbol(envoyService)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]*descriptorpb.FileDescriptorProto{}
	for len(found) > 0 {
		f := found[0]
		found = found[1:]
		have[f.GetName()] = f
		for _, name := range f.GetDependency() {
			if have[name] != nil {
				continue
			}
			more, err := stream.FileByFilename(name)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, more...)
		}
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range have {
		set.File = append(set.File, f)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName(envoyService + ".ShouldRateLimit")
	if err != nil {
		t.Fatal(err)
	}
	method := d.(protoreflect.MethodDescriptor)
	in, out := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	const request = `{"domain": "edge", "descriptors": [{"entries": [{"key": "tenant_id", "value": "acme"}, {"key": "api_key", "value": "k"}]}]}`
	if err := protojson.Unmarshal([]byte(request), in); err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), authorizationOf(secret)...)
	if err := dialGRPC(t, e).Invoke(ctx, envoyShouldRateLimit, in, out); err != nil {
		t.Fatal(err)
	}
	codes := method.Output().Fields().ByName("overall_code")
	if got := codes.Enum().Values().ByNumber(out.Get(codes).Enum()).Name(); got != "OK" {
		t.Errorf("overall code %s", got)
	}
	if len(e.services.checks) != 1 || e.services.checks[0].Token != "k" {
		t.Errorf("checks %+v", e.services.checks)
	}
}
