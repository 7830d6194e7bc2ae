package ingest

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

// statement reads an in-toto statement into a receipt.
type statement struct {
	root *value
	d    index.Document
}

// statementAttributes lists the attributes taken from a statement: the first path that leads
// to a text, number or boolean counts. Everything else of a predicate stays in its
// attestation: build environments are large and hold what nobody searches for.
var statementAttributes = []struct {
	name  string
	paths []string
}{
	{"statementType", []string{"_type"}},
	{"predicateType", []string{"predicateType"}},
	{"buildType", []string{
		"predicate.buildType",
		"predicate.buildDefinition.buildType",
		"predicate.recipe.type",
	}},
	{"source", []string{
		"predicate.invocation.configSource.uri",
		"predicate.buildDefinition.externalParameters.source.uri",
		"predicate.buildDefinition.externalParameters.source.artifact.uri",
		"predicate.buildDefinition.externalParameters.source",
		"predicate.buildDefinition.externalParameters.workflow.repository",
		"predicate.externalParameters.artifacts.source.uri",
	}},
	{"ref", []string{
		"predicate.buildDefinition.externalParameters.workflow.ref",
	}},
	{"entryPoint", []string{
		"predicate.invocation.configSource.entryPoint",
		"predicate.buildDefinition.externalParameters.workflow.path",
		"predicate.buildDefinition.externalParameters.workflowPath",
		"predicate.buildDefinition.externalParameters.configPath",
		"predicate.recipe.entryPoint",
	}},
}

// npmAttributes are those of npm's publish attestation.
var npmAttributes = []string{"name", "version", "registry"}

const (
	statementTypePrefix = "https://in-toto.io/Statement"
	provenancePrefix    = "https://slsa.dev/provenance"
	npmPublishPrefix    = "https://github.com/npm/attestation/"
)

func (s *statement) read() *index.DocumentError {
	statementType := textOf(s.root.get("_type"))
	if !strings.HasPrefix(statementType, statementTypePrefix) {
		return refusal(ReasonStatementMalformed, "_type", "%q is not an in-toto statement; its type begins with %s", shorten(statementType), statementTypePrefix)
	}
	predicate := s.root.get("predicate")
	if predicate != nil && predicate.kind != kindObject {
		return refusal(ReasonStatementMalformed, "predicate", "expected an object, this is %s", predicate.kind)
	}
	inputs := firstOf(predicate.get("materials"), predicate.path("buildDefinition", "resolvedDependencies"))
	// Whatever its type says: a predicate that names materials tells what its subjects were
	// made from, so it is provenance and its subjects are outputs.
	subjects := index.DirectionSubject
	if inputs != nil || strings.HasPrefix(textOf(s.root.get("predicateType")), provenancePrefix) {
		subjects = index.DirectionOutput
	}
	if fault := s.digests("subject", s.root.get("subject"), subjects); fault != nil {
		return fault
	}
	if fault := s.digests("material", inputs, index.DirectionInput); fault != nil {
		return fault
	}
	s.run(predicate)
	s.attributes(predicate)
	return s.times(predicate)
}

// digests adds the digests of a list of artifacts. An artifact without digest has nothing
// to be found by and is passed over.
func (s *statement) digests(what string, list *value, direction string) *index.DocumentError {
	if list == nil {
		return nil
	}
	if list.kind != kindArray {
		return refusal(ReasonStatementMalformed, what, "expected an array, this is %s", list.kind)
	}
	for i := range list.list {
		artifact := &list.list[i]
		field := fmt.Sprintf("%s[%d]", what, i)
		if artifact.kind != kindObject {
			return refusal(ReasonStatementMalformed, field, "expected an object, this is %s", artifact.kind)
		}
		name := textOf(firstOf(artifact.get("name"), artifact.get("uri")))
		if uri := textOf(artifact.get("uri")); direction == index.DirectionInput && uri != "" {
			name = uri // a material's name is a short form of where it came from
		}
		if fault := s.digestSet(field, name, direction, artifact.get("digest")); fault != nil {
			return fault
		}
	}
	return nil
}

func (s *statement) digestSet(field, name, direction string, set *value) *index.DocumentError {
	if set == nil {
		return nil
	}
	if set.kind != kindObject {
		return refusal(index.ReasonDigestMalformed, field+".digest", "%q: expected an object of algorithm and value, this is %s", shorten(name), set.kind)
	}
	for i := range set.members {
		algorithm, v := set.members[i].name, &set.members[i].value
		if v.kind != kindString {
			return refusal(index.ReasonDigestMalformed, field+".digest."+shorten(algorithm), "%q: expected a string, this is %s", shorten(name), v.kind)
		}
		canonical, hexValue, err := index.ParseDigest(index.FormatDigest(algorithm, v.text))
		if err != nil {
			return refusal(index.ReasonDigestMalformed, field+".digest."+shorten(algorithm), "%q: %v", shorten(name), err)
		}
		s.d.Digests = append(s.d.Digests, index.Digest{Algorithm: canonical, Value: hexValue, Direction: direction, Name: name})
	}
	return nil
}

// run fills in who ran the build and in which run.
func (s *statement) run(predicate *value) {
	metadata := metadataOf(predicate)
	s.d.Runner = textOf(firstOf(predicate.path("builder", "id"), predicate.path("runDetails", "builder", "id")))
	// Specifications and generators do not agree on the spelling.
	s.d.Execution = textOf(firstOf(
		metadata.get("invocationId"), metadata.get("invocationID"),
		metadata.get("buildInvocationId"), metadata.get("buildInvocationID"),
	))
}

func metadataOf(predicate *value) *value {
	return firstOf(predicate.path("runDetails", "metadata"), predicate.get("metadata"))
}

// times fills in when the build ended, or began where its end is unknown, and how long it
// took where both are known.
func (s *statement) times(predicate *value) *index.DocumentError {
	metadata := metadataOf(predicate)
	started, fault := statementTime("startedOn", firstOf(metadata.get("startedOn"), metadata.get("buildStartedOn")))
	if fault != nil {
		return fault
	}
	finished, fault := statementTime("finishedOn", firstOf(metadata.get("finishedOn"), metadata.get("buildFinishedOn")))
	if fault != nil {
		return fault
	}
	at := finished
	if at.IsZero() {
		at = started
	}
	if at.IsZero() {
		return nil
	}
	s.d.TimeStamped = false
	if s.d.Time, fault = nanoseconds("predicate.metadata", at); fault != nil {
		return fault
	}
	if took := finished.Sub(started).Milliseconds(); !started.IsZero() && took > 0 && took <= math.MaxUint32 {
		s.d.DurationMs = uint32(took)
	}
	return nil
}

// statementTime reads a time that may be absent. Generators written in Go spell an unknown
// time 0001-01-01T00:00:00Z, which is time.Time's zero.
func statementTime(field string, v *value) (time.Time, *index.DocumentError) {
	if v == nil || v.kind == kindString && v.text == "" {
		return time.Time{}, nil
	}
	return parseTime("predicate.metadata."+field, v, time.RFC3339)
}

func (s *statement) attributes(predicate *value) {
	add := func(name string, v *value) bool {
		text, ok := v.scalar()
		if ok && text != "" {
			s.d.Attributes = append(s.d.Attributes, index.Attribute{Name: name, Value: text})
		}
		return ok
	}
	for _, a := range statementAttributes {
		for _, path := range a.paths {
			if add(a.name, s.root.path(strings.Split(path, ".")...)) {
				break
			}
		}
	}
	if strings.HasPrefix(textOf(s.root.get("predicateType")), npmPublishPrefix) {
		for _, name := range npmAttributes {
			add("package."+name, predicate.get(name))
		}
	}
}

func firstOf(values ...*value) *value {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}
