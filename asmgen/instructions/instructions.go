// Package instructions finds the main loops in the assembly of package kernel and counts their instructions.
//
// The main loop of a function is the one over its largest blocks of elements. The loop over the models lies inside it,
// and around that stands what is done once for a block:
//
//	block:     start from −0 or from accumulators                   Start
//	models:    for each model: load and fold its elements           Model
//	folded:    divide or scale, if the call says so                 Divide
//	divided:   round to elements                                    Round
//	           store, past the caches if the call says so           Store
//	stored:    move on to the next block                            Advance
//
// Some functions of kernel_amd64.s have loops over blocks of a number of models besides, without one over the models. The
// staggered ones have a loop over groups of models instead of that over blocks, and the magnitude functions have one loop,
// over the bytes of one slice.
package instructions

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Loop is the main loop of a function.
type Loop struct {
	Function       string // such as "weightedSumFloat32AVX512"
	Elements       int    // in a block
	Models         int    // which the loop is for, or 0 for any number
	first          int    // number of the first line in lines
	lines          []line
	models, folded int // the loop over the models is lines[models:folded]
}

// A line is a line of a block.
type line struct {
	label       string // without what makes it unique: "models" for models14 and blockModels; "" if there is none
	instruction string // "" if there is none
}

var (
	labelLine = regexp.MustCompile(`^(\w+):$`)
	// A number makes a label unique in a function of kernel_amd64.s, a prefix in one of kernel_arm64.s.
	labelName  = regexp.MustCompile(`^(?:block)?([A-Za-z]+?)\d*$`)
	immediate  = regexp.MustCompile(`^CMPQ? .*\$\+?(\d+)`)
	subtracted = regexp.MustCompile(`^SUB[QS] +\$(\w+)`)
)

// Loops returns the main loops of all functions in a file of package kernel but the staggered and the magnitude functions,
// in their order. It fails if one of them has none.
func Loops(assembly string) ([]Loop, error) {
	var loops []Loop
	function, inBlock := "", false
	for i, text := range strings.Split(assembly, "\n") {
		text, _, _ = strings.Cut(text, "//")
		text = strings.TrimSpace(text)
		if name, isFunction := strings.CutPrefix(text, "TEXT ·"); isFunction {
			if inBlock || function != "" {
				return nil, fmt.Errorf("%s has no main loop", function)
			}
			if function, _, _ = strings.Cut(name, "(SB)"); !hasBlocks(function) {
				function = ""
			}
			continue
		}
		label := labelLine.FindStringSubmatch(text)
		if function != "" && !inBlock && label != nil && labelName.FindStringSubmatch(label[1])[1] == "block" {
			loops, inBlock = append(loops, Loop{Function: function, first: i + 1}), true
		}
		if !inBlock {
			continue
		}
		loop := &loops[len(loops)-1]
		switch {
		case text == "":
			loop.lines = append(loop.lines, line{})
		case label != nil:
			name := strings.ToLower(labelName.FindStringSubmatch(label[1])[1])
			switch name {
			case "models":
				loop.models = len(loop.lines)
			case "folded":
				loop.folded = len(loop.lines)
			}
			loop.lines = append(loop.lines, line{label: name})
		default:
			loop.lines = append(loop.lines, line{instruction: text})
			if m := immediate.FindStringSubmatch(text); m != nil {
				loop.Elements, _ = strconv.Atoi(m[1])
			}
			if _, target := branch(text); target == "block" {
				if loop.models == 0 || loop.folded <= loop.models || loop.Elements == 0 {
					return nil, fmt.Errorf("%s has no loop over models in its main loop", function)
				}
				function, inBlock = "", false
			}
		}
	}
	if function != "" {
		return nil, fmt.Errorf("%s has no main loop", function)
	}
	return loops, nil
}

// hasBlocks reports whether a function has a loop over blocks with one over the models in it.
func hasBlocks(function string) bool {
	return !strings.HasPrefix(function, "magnitude") && !strings.HasPrefix(function, "weightedSumStaggered")
}

// A Staggered is a loop over the models in a staggered function.
type Staggered struct {
	Function              string // such as "weightedSumStaggeredFloat32AVX2"
	Vectors, Instructions int    // of one model
}

// StaggeredLoops returns the loops over models of the staggered functions in a file of package kernel, in their order.
func StaggeredLoops(assembly string) ([]Staggered, error) {
	found, err := simpleLoops(assembly, "weightedSumStaggered", "models")
	if err != nil {
		return nil, err
	}
	var loops []Staggered
	for _, l := range found {
		loop := Staggered{Function: l.function, Instructions: len(l.instructions)}
		for _, text := range l.instructions {
			if strings.HasPrefix(text, "VFMADD") {
				loop.Vectors++
			}
		}
		loops = append(loops, loop)
	}
	return loops, nil
}

// A simpleLoop is the instructions from a label to the branch back to it.
type simpleLoop struct {
	function     string
	instructions []string
}

// simpleLoops returns the loops at a label, whatever its number, in the functions whose names begin with a prefix.
func simpleLoops(assembly, prefix, label string) (loops []simpleLoop, err error) {
	function, inLoop := "", false
	for text := range strings.Lines(assembly) {
		text, _, _ = strings.Cut(text, "//")
		text = strings.TrimSpace(text)
		if name, isFunction := strings.CutPrefix(text, "TEXT ·"); isFunction {
			if inLoop {
				break
			}
			function, _, _ = strings.Cut(name, "(SB)")
		}
		if !strings.HasPrefix(function, prefix) || text == "" {
			continue
		}
		if m := labelLine.FindStringSubmatch(text); m != nil && strings.HasPrefix(m[1], label) {
			loops, inLoop = append(loops, simpleLoop{function: function}), true
			continue
		}
		if !inLoop {
			continue
		}
		loop := &loops[len(loops)-1]
		loop.instructions = append(loop.instructions, text)
		if _, target := branch(text); target == label {
			inLoop = false
		}
	}
	if inLoop {
		return nil, fmt.Errorf("%s: the loop does not end", function)
	}
	return loops, nil
}

// numbers are the labels of loops that are for a number of models.
var numbers = map[string]int{"two": 2, "three": 3, "four": 4, "eight": 8}

// Common returns the loops that are for a number of models, in their order. Behind such a loop, at the label flagged, lies
// the rest of the block for calls with flags; that is in it, too.
func Common(assembly string) ([]Loop, error) {
	var loops []Loop
	function, in := "", ""
	for text := range strings.Lines(assembly) {
		text, _, _ = strings.Cut(text, "//")
		text = strings.TrimSpace(text)
		if name, isFunction := strings.CutPrefix(text, "TEXT ·"); isFunction {
			function, _, _ = strings.Cut(name, "(SB)")
		}
		name := ""
		if label := labelLine.FindStringSubmatch(text); label != nil {
			name = strings.ToLower(labelName.FindStringSubmatch(label[1])[1])
		}
		if in == "" && numbers[name] > 0 {
			in, loops = name, append(loops, Loop{Function: function, Models: numbers[name]})
			name = "block"
		}
		if in == "" {
			continue
		}
		loop := &loops[len(loops)-1]
		switch {
		case name != "":
			loop.lines = append(loop.lines, line{label: name})
			continue
		case text == "":
			continue
		}
		if m := immediate.FindStringSubmatch(text); m != nil {
			loop.Elements, _ = strconv.Atoi(m[1])
		}
		if _, target := branch(text); target == in {
			loop.lines = append(loop.lines, line{instruction: "JGE block"})
			if !slices.Contains(loop.lines, line{label: "flagged"}) {
				continue
			}
			if in = ""; loop.Elements == 0 {
				return nil, fmt.Errorf("%s: the loop for %d models has no number of elements", function, loop.Models)
			}
			continue
		}
		loop.lines = append(loop.lines, line{instruction: text})
	}
	if in != "" {
		return nil, fmt.Errorf("%s: the loop for %d models does not end", function, numbers[in])
	}
	return loops, nil
}

// A Magnitude is the loop of a magnitude function.
type Magnitude struct {
	Function            string // such as "magnitude16AVX2"
	Bytes, Instructions int    // of one turn
}

// Magnitudes returns those of a file of package kernel, in their order.
func Magnitudes(assembly string) ([]Magnitude, error) {
	found, err := simpleLoops(assembly, "magnitude", "magnitudes")
	if err != nil {
		return nil, err
	}
	var loops []Magnitude
	for _, l := range found {
		loop := Magnitude{Function: l.function, Instructions: len(l.instructions)}
		for _, text := range l.instructions {
			if m := subtracted.FindStringSubmatch(text); m != nil {
				bytes, err := strconv.ParseInt(m[1], 0, 0)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", l.function, err)
				}
				loop.Bytes = int(bytes)
			}
		}
		if loop.Bytes == 0 {
			return nil, fmt.Errorf("%s: the loop has no number of bytes", l.function)
		}
		loops = append(loops, loop)
	}
	return loops, nil
}

// ModelLines returns the first and the last line number of the loop over the models, counted from 1.
func (l *Loop) ModelLines() (first, last int) {
	return l.first + l.models + 1, l.first + l.folded - 1
}

// A Call is what a call asks for that changes the way through a block.
type Call struct {
	Continue bool // start from accumulators
	Divide   bool
	Scale    bool
	Stream   bool // store past the caches
}

// A Count is how many instructions are executed in one block.
type Count struct {
	Model                                int // for each model
	Start, Divide, Round, Store, Advance int // once
}

// Count follows a call of one model through the block.
func (l *Loop) Count(call Call) (Count, error) {
	var count Count
	phases := map[string]*int{
		"block": &count.Start, "fresh": &count.Start, "clear": &count.Start, "started": &count.Start,
		"models":  &count.Model,
		"flagged": &count.Divide,
		"folded":  &count.Divide, "scale": &count.Divide,
		"divided": &count.Round,
		"past":    &count.Store, "keep": &count.Store,
		"stored": &count.Advance,
	}
	if !slices.ContainsFunc(l.lines, func(line line) bool { return line.label == "divided" }) {
		phases["folded"] = &count.Store // accumulators
	}
	// Where a conditional branch goes is a matter of what it branches to.
	taken := map[string]bool{
		"fresh": !call.Continue, "clear": !call.Continue,
		"folded": false, "models": false,
		"scale": call.Scale, "divided": !call.Divide && !call.Scale,
		"flagged": call.Divide || call.Scale || call.Stream,
		"past":    call.Stream, "keep": !call.Stream,
	}
	var phase *int
	for i := 0; i < len(l.lines); i++ {
		switch text := l.lines[i].instruction; {
		case l.lines[i].label != "":
			phase = phases[l.lines[i].label]
			if phase == nil {
				return count, fmt.Errorf("%s: label %s has no meaning here", l.Function, l.lines[i].label)
			}
		case text != "":
			*phase++
			condition, target := branch(text)
			if target == "block" {
				return count, nil
			}
			if target == "" {
				continue
			}
			if target == "past" || target == "keep" {
				phase = &count.Store
			}
			if jump, known := taken[target]; condition && !known {
				return count, fmt.Errorf("%s: %s has no meaning here", l.Function, text)
			} else if condition && !jump {
				continue
			}
			for l.lines[i].label != target {
				if i++; i == len(l.lines) {
					return count, fmt.Errorf("%s: label %s is not in the block", l.Function, target)
				}
			}
			i--
		}
	}
	return count, nil
}

// branch returns the label that an instruction branches to and whether it does so on a condition: no label if it is not a
// branch.
func branch(instruction string) (condition bool, label string) {
	fields := strings.Fields(instruction)
	switch mnemonic := fields[0]; {
	case mnemonic == "JMP", mnemonic == "B":
	case mnemonic[0] == 'J', mnemonic == "BGE", mnemonic == "BLT", mnemonic == "BEQ", mnemonic == "BNE",
		strings.HasPrefix(mnemonic, "CB"), strings.HasPrefix(mnemonic, "TB"):
		condition = true
	default:
		return false, ""
	}
	m := labelName.FindStringSubmatch(fields[len(fields)-1])
	if m == nil {
		return condition, fields[len(fields)-1]
	}
	return condition, strings.ToLower(m[1])
}
