package mwpkg

// Condition is the parsed If of a step:
//
//	or    = and { "||" and }        and = not { "&&" not }
//	not   = "!" not | "(" or ")" | value [ ("==" | "!=") value ]
//	value = "inputs." NAME | "steps." ID ".ok" | "steps." ID ".failed" | "steps." ID ".skipped"
//	      | "steps." ID "." OUTPUT | text in double quotes | number | true | false
//
// There are no functions and no other operators.
type Condition struct{}

// Values are what a condition and placeholders refer to.
type Values struct {
	// Inputs are resolved inputs.
	Inputs map[string]any
	// Steps are the steps that have ended.
	Steps map[string]StepResult
}

// StepResult is how a step ended.
type StepResult struct {
	// Status is succeeded, failed or skipped.
	Status  string
	Outputs map[string]string
}

// ParseCondition reads a condition.
func ParseCondition(text string) (*Condition, error) { return nil, errTODO }

// Eval says whether the condition holds. A value that is absent is false, and equal to nothing.
func (c *Condition) Eval(v Values) (bool, error) { return false, errTODO }

// Expand gives the text that an argument or variable stands for: its placeholder's value, or
// itself. Arrays are JSON, other values as JSON writes them without quotes; ok is false for one that is absent.
func (v Values) Expand(text string) (value string, ok bool) { return "", false }
