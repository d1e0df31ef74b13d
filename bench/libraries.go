package main

import (
	"fmt"
	"unsafe"

	"github.com/modelavg/modelavg/bench/probe"
	"github.com/modelavg/modelavg/internal/implementation"
)

// A library is one line of the charts: a way of doing the jobs, or a probe for the limit of the machine.
type library struct {
	name  string
	kind  libraryKind
	about string

	// prepare returns a function that does p's job in the arena a number of times, or nil if the library has no such
	// job or type. The loop is inside so that the library's functions are called directly, as their users do.
	prepare func(a *arena, p point) func(times int)

	// bytes returns what one run moves; nil stands for what the job has to move.
	bytes func(p point) int

	// optional libraries are measured only when they are named.
	optional bool
}

type libraryKind uint8

const (
	ours    libraryKind = iota
	plainGo             // loops that anyone would write
	peer                // what the results are compared with
	mover               // moves bytes and does no job
)

// libraries are all that can be measured, in the order of the tables.
func libraries() (list []library) {
	list = append(list, ourLibraries()...)
	list = append(list, plainLibraries()...)
	list = append(list, peerLibraries()...)
	return append(list, movers()...)
}

// movedBytes returns what one run of l moves at p.
func (l library) movedBytes(p point) int {
	if l.bytes != nil {
		return l.bytes(p)
	}
	return p.bytes()
}

// implementationsOf returns the given libraries of ours once more for each named implementation, forced to it.
func implementationsOf(list []library, names []string) (forced []library) {
	for _, l := range list {
		if l.kind != ours || l.optional {
			continue
		}
		for _, name := range names {
			forced = append(forced, library{
				name:  l.name + "-" + name,
				kind:  ours,
				about: l.about + ", on " + name,
				prepare: func(a *arena, p point) func(int) {
					run := l.prepare(a, p)
					if run == nil {
						return nil
					}
					return func(times int) {
						restore, err := implementation.Force(name)
						if err != nil {
							panic(err) // the flag was checked
						}
						defer restore()
						run(times)
					}
				},
			})
		}
	}
	return forced
}

// The names of movers begin with this; Go's copy is a mover too, but anyone's.
const (
	limitPrefix = "limit-"
	callName    = limitPrefix + "call" // moves nothing
)

// minimumMoved is the least length that movers pass over, so that at small n they show what the first cache can do and
// not what a call costs.
const minimumMoved = 4096

// movers returns Go's copy and the probes.
func movers() (list []library) {
	// A copy takes the models in turn, so that it moves between the same caches as the job.
	stream := func(p point) int { return max(p.n*p.dtype.size(), minimumMoved) / probe.Line * probe.Line }
	bytesOf := func(factor int) func(p point) int {
		return func(p point) int { return factor * stream(p) }
	}
	sources := func(a *arena, p point) (dst unsafe.Pointer, src []unsafe.Pointer) {
		for k := range p.models {
			src = append(src, unsafe.Pointer(&a.memory[(k+1)*stride(p)]))
		}
		return unsafe.Pointer(&a.memory[0]), src
	}
	list = append(list, library{
		name: "copy", kind: mover, about: "Go's copy of a model", bytes: bytesOf(2),
		prepare: func(a *arena, p point) func(int) {
			if p.job == emaStep {
				return nil
			}
			dst, src := sources(a, p)
			d := unsafe.Slice((*byte)(dst), stream(p))
			var s [][]byte
			for _, q := range src {
				s = append(s, unsafe.Slice((*byte)(q), stream(p)))
			}
			return func(times int) {
				for i, k := 0, 0; i < times; i, k = i+1, k+1 {
					if k == len(s) {
						k = 0
					}
					copy(d, s[k])
				}
			}
		},
	})
	for _, c := range probe.Copies() {
		list = append(list, library{
			name: limitPrefix + c.Name, kind: mover, about: "probe: copies a model", bytes: bytesOf(c.BytesPerByte),
			prepare: func(a *arena, p point) func(int) {
				if p.job == emaStep {
					return nil
				}
				dst, src := sources(a, p)
				return func(times int) {
					for i, k := 0, 0; i < times; i, k = i+1, k+1 {
						if k == len(src) {
							k = 0
						}
						c.Run(dst, src[k], stream(p), 1)
					}
				}
			},
		})
	}
	for _, r := range probe.Reads() {
		length := func(p point) int { return max(p.bytes(), minimumMoved) / probe.Line * probe.Line }
		list = append(list, library{
			name: limitPrefix + r.Name, kind: mover, about: "probe: reads as many bytes as the job moves", bytes: length,
			prepare: func(a *arena, p point) func(int) {
				if p.job == emaStep {
					return nil
				}
				return func(times int) { r.Run(unsafe.Pointer(&a.memory[0]), nil, length(p), times) }
			},
		})
	}
	for _, u := range probe.Updates() {
		list = append(list, library{
			name: limitPrefix + u.Name, kind: mover, about: "probe: reads two streams, writes one back", bytes: bytesOf(u.BytesPerByte),
			prepare: func(a *arena, p point) func(int) {
				if p.job != emaStep {
					return nil
				}
				dst, src := sources(a, p)
				return func(times int) { u.Run(dst, src[0], stream(p), times) }
			},
		})
	}
	return append(list, library{
		name: callName, kind: mover, about: "probe: calls a function that does nothing",
		bytes: func(point) int { return 0 },
		prepare: func(a *arena, p point) func(int) {
			if p.dtype != float32s || p.n > 256 {
				return nil
			}
			o, w := carve[float32](a, p), p.weights()
			return func(times int) { probe.Call(o.dst, o.models, w, times) }
		},
	})
}

// choose returns the libraries with the given names, and those of ours once more for each implementation.
func choose(names, implementations string) ([]library, error) {
	known := libraries()
	var forced []library
	if implementations != "" {
		var available []string
		for _, i := range implementation.Available() {
			available = append(available, i.String())
		}
		chosen, err := parseNames("impl", implementations, available)
		if err != nil {
			return nil, err
		}
		forced = implementationsOf(known, chosen)
	}
	var list []library
	switch names {
	case "default":
		for _, l := range known {
			if !l.optional {
				list = append(list, l)
			}
		}
	case "all":
		list = known
	default:
		var all []string
		for _, l := range known {
			all = append(all, l.name)
		}
		chosen, err := parseNames("libraries", names, all)
		if err != nil {
			return nil, fmt.Errorf("%w; default stands for those that are measured without this flag", err)
		}
		for _, name := range chosen {
			for _, l := range known {
				if l.name == name {
					list = append(list, l)
				}
			}
		}
	}
	return append(list, forced...), nil
}
