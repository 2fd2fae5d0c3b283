package hdfs

import (
	"errors"
	"fmt"
	"reflect"

	lib "github.com/colinmarc/hdfs/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// executor does one call to the NameNode.
type executor func(method string, request, response proto.Message) error

// executorOf returns the library's own way to call the NameNode, which it keeps to
// itself. Through it come the calls that the library has no method for: a rename
// that replaces nothing, a listing from the middle, a deletion that says whether
// there was anything. It brings authentication, encryption and failover along. The
// library is pinned and no longer developed; a test fails if this stops to work.
func executorOf(c *lib.Client) (executor, error) {
	field := reflect.ValueOf(c).Elem().FieldByName("namenode")
	if !field.IsValid() || field.Kind() != reflect.Pointer || field.IsNil() {
		return nil, errLibrary
	}
	method := reflect.NewAt(field.Type().Elem(), field.UnsafePointer()).MethodByName("Execute")
	if !method.IsValid() {
		return nil, errLibrary
	}
	execute, ok := reflect.TypeAssert[func(string, proto.Message, proto.Message) error](method)
	if !ok {
		return nil, errLibrary
	}
	return execute, nil
}

var errLibrary = errors.New("the HDFS library is not the version that this driver was made for")

// fields are those of a request, by name; nested messages are fields again, and
// repeated ones []fields.
type fields map[protoreflect.Name]any

// rpc calls method with a request of the given fields and returns the response.
func (c *client) rpc(method string, request fields) (protoreflect.Message, error) {
	name := protoreflect.FullName("hadoop.hdfs." + string(method[0]-'a'+'A') + method[1:])
	req, err := newMessage(name + "RequestProto")
	if err != nil {
		return nil, err
	}
	resp, err := newMessage(name + "ResponseProto")
	if err != nil {
		return nil, err
	}
	if err := fill(req, request); err != nil {
		return nil, err
	}
	if err := c.execute(method, req.Interface(), resp.Interface()); err != nil {
		return nil, err
	}
	return resp, nil
}

func newMessage(name protoreflect.FullName) (protoreflect.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		return nil, fmt.Errorf("%w: no message %s", errLibrary, name)
	}
	return t.New(), nil
}

func fill(m protoreflect.Message, values fields) error {
	for name, value := range values {
		fd := m.Descriptor().Fields().ByName(name)
		if fd == nil {
			return fmt.Errorf("%w: %s has no field %s", errLibrary, m.Descriptor().FullName(), name)
		}
		if nested, ok := value.(fields); ok {
			if err := fill(m.Mutable(fd).Message(), nested); err != nil {
				return err
			}
			continue
		}
		if list, ok := value.([]fields); ok {
			for _, element := range list {
				if err := fill(m.Mutable(fd).List().AppendMutable().Message(), element); err != nil {
					return err
				}
			}
			continue
		}
		m.Set(fd, protoreflect.ValueOf(value))
	}
	return nil
}

// get returns a field of m by name, not ok if it is not set.
func get(m protoreflect.Message, name protoreflect.Name) (v protoreflect.Value, ok bool) {
	fd := m.Descriptor().Fields().ByName(name)
	if fd == nil || !m.Has(fd) {
		return v, false
	}
	return m.Get(fd), true
}

// fileInfo asks about a path; nil if there is nothing.
func (c *client) fileInfo(path string) (*lib.FileStatus, error) {
	resp, err := c.rpc("getFileInfo", fields{"src": path})
	if err != nil {
		return nil, err
	}
	v, ok := get(resp, "fs")
	if !ok {
		return nil, nil //nolint:nilnil // nothing there is an answer
	}
	return asStatus(v.Message())
}

func asStatus(m protoreflect.Message) (*lib.FileStatus, error) {
	s, ok := m.Interface().(*lib.FileStatus)
	if !ok {
		return nil, errLibrary
	}
	return s, nil
}

// page returns what a directory holds after a name, in the NameNode's order, and
// how much there is left; not found if there is no such path. For a file it is the
// file itself, with an empty name.
func (c *client) page(path, after string) (entries []*lib.FileStatus, left uint64, found bool, err error) {
	resp, err := c.rpc("getListing", fields{"src": path, "startAfter": []byte(after), "needLocation": false})
	if err != nil {
		return nil, 0, false, err
	}
	dir, ok := get(resp, "dirList")
	if !ok {
		return nil, 0, false, nil
	}
	if v, ok := get(dir.Message(), "remainingEntries"); ok {
		left = v.Uint()
	}
	v, ok := get(dir.Message(), "partialListing")
	if !ok {
		return nil, left, true, nil
	}
	list := v.List()
	entries = make([]*lib.FileStatus, list.Len())
	for i := range entries {
		if entries[i], err = asStatus(list.Get(i).Message()); err != nil {
			return nil, 0, false, err
		}
	}
	return entries, left, true, nil
}

// rename moves from to to. With overwrite it replaces a file, without it nothing.
func (c *client) rename(from, to string, overwrite bool) error {
	_, err := c.rpc("rename2", fields{"src": from, "dst": to, "overwriteDest": overwrite})
	return err
}

// remove deletes a path; not found if there was nothing.
func (c *client) remove(path string, recursive bool) (found bool, err error) {
	resp, err := c.rpc("delete", fields{"src": path, "recursive": recursive})
	if err != nil {
		return false, err
	}
	v, ok := get(resp, "result")
	return ok && v.Bool(), nil
}

// mkdirs makes a directory and those above it. An existing one is no error.
func (c *client) mkdirs(path string, mode uint32) error {
	resp, err := c.rpc("mkdirs", fields{"src": path, "masked": fields{"perm": mode}, "createParent": true})
	if err != nil {
		return err
	}
	if v, ok := get(resp, "result"); !ok || !v.Bool() {
		return errRefused
	}
	return nil
}

var errRefused = errors.New("the NameNode refused without a reason")

func (c *client) chmod(path string, mode uint32) error {
	_, err := c.rpc("setPermission", fields{"src": path, "permission": fields{"perm": mode}})
	return err
}

// chown leaves alone what is nil.
func (c *client) chown(path string, owner, group *string) error {
	request := fields{"src": path}
	if owner != nil {
		request["username"] = *owner
	}
	if group != nil {
		request["groupname"] = *group
	}
	_, err := c.rpc("setOwner", request)
	return err
}
