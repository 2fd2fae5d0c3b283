package cli

import (
	"strconv"
	"strings"

	"github.com/freshet-io/freshet"
)

// modeChange says what becomes of the mode of a file or a directory.
type modeChange struct {
	text  string
	fixed bool // whatever it was
	apply func(old uint32, dir bool) uint32
}

// parseModeChange reads an octal mode, or clauses as chmod has them: "u=rwX,go-w".
// Where a clause says nobody it means all.
func parseModeChange(text string) (modeChange, error) {
	if v, err := strconv.ParseUint(text, 8, 32); err == nil && v <= 0o7777 {
		return modeChange{text: text, fixed: true, apply: func(uint32, bool) uint32 { return uint32(v) }}, nil
	}
	var steps []modeStep
	for clause := range strings.SplitSeq(text, ",") {
		more, ok := parseClause(clause)
		if !ok {
			return modeChange{}, freshet.Errorf(freshet.KindInvalid, "chmod", "", `%q is not an octal mode such as 640, nor one such as "u=rwX,go-w"`, text)
		}
		steps = append(steps, more...)
	}
	return modeChange{text: text, apply: func(mode uint32, dir bool) uint32 {
		for _, s := range steps {
			mode = s.apply(mode, dir)
		}
		return mode
	}}, nil
}

// modeStep is one operator of a clause.
type modeStep struct {
	who  uint32 // bits of the classes, special ones included
	op   byte
	perm uint32 // of all classes
	copy int    // shift of the class that is copied, -1 for none
	x    bool   // X: execute where it makes sense
}

func (s modeStep) apply(mode uint32, dir bool) uint32 {
	bits := s.perm
	if s.copy >= 0 {
		bits |= (mode >> s.copy & 7) * 0o111
	}
	if s.x && (dir || mode&0o111 != 0) {
		bits |= 0o111
	}
	bits &= s.who
	switch s.op {
	case '+':
		return mode | bits
	case '-':
		return mode &^ bits
	}
	cleared := s.who
	if dir {
		cleared &^= 0o6000 // as chmod: those of directories go only when they are named
	}
	return mode&^cleared | bits
}

// parseClause reads who, and then one or more operators with permissions.
func parseClause(clause string) (steps []modeStep, ok bool) {
	const ofUser, ofGroup, ofOther = 0o4700, 0o2070, 0o1007
	who, rest := uint32(0), clause
	for ; rest != "" && strings.IndexByte("ugoa", rest[0]) >= 0; rest = rest[1:] {
		who |= map[byte]uint32{'u': ofUser, 'g': ofGroup, 'o': ofOther, 'a': 0o7777}[rest[0]]
	}
	if who == 0 {
		who = 0o7777
	}
	if who&0o111 == 0o111 {
		who |= 0o1000
	}
	for rest != "" {
		s := modeStep{who: who, op: rest[0], copy: -1}
		if strings.IndexByte("+-=", s.op) < 0 {
			return nil, false
		}
		rest = rest[1:]
		n := strings.IndexAny(rest, "+-=")
		if n < 0 {
			n = len(rest)
		}
		if !s.permissions(rest[:n]) {
			return nil, false
		}
		steps, rest = append(steps, s), rest[n:]
	}
	return steps, len(steps) > 0
}

func (s *modeStep) permissions(text string) bool {
	if shift, ok := map[string]int{"u": 6, "g": 3, "o": 0}[text]; ok {
		s.copy = shift
		return true
	}
	for _, c := range []byte(text) {
		switch c {
		case 'r':
			s.perm |= 0o444
		case 'w':
			s.perm |= 0o222
		case 'x':
			s.perm |= 0o111
		case 's':
			s.perm |= 0o6000
		case 't':
			s.perm |= 0o1000
			s.who |= 0o1000
		case 'X':
			s.x = true
		default:
			return false
		}
	}
	return true
}
