package hdfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

var errClosed = errors.New("the storage is closed")

// meaning is what an error of the NameNode says.
type meaning struct {
	kind freshet.Kind
	text string
}

// exceptions maps the last part of a Java class name. What is not listed is
// unavailable: an error that nobody knows is never "not found".
func exceptions() map[string]meaning {
	const (
		denied   = "HDFS denies it to the user that Freshet acts as; check owner and mode, or the option user"
		quota    = "a quota of HDFS is used up"
		notDir   = "a file is where a directory should be"
		name     = "HDFS takes no such name"
		starting = "the NameNode is in safe mode; try again when it has left it"
		ended    = "the upload has ended: its temporary file is gone or belongs to another writer"
	)
	return map[string]meaning{
		"FileNotFoundException":                               {freshet.KindNotExist, "does not exist"},
		"FileAlreadyExistsException":                          {freshet.KindExist, "exists"},
		"AlreadyBeingCreatedException":                        {freshet.KindConflict, "another program is writing it"},
		"RecoveryInProgressException":                         {freshet.KindUnavailable, "HDFS recovers the file from a writer that died"},
		"LeaseExpiredException":                               {freshet.KindConflict, ended},
		"ParentNotDirectoryException":                         {freshet.KindConflict, notDir},
		"PathIsNotDirectoryException":                         {freshet.KindConflict, notDir},
		"PathIsNotEmptyDirectoryException":                    {freshet.KindConflict, "the directory is not empty"},
		"UnresolvedPathException":                             {freshet.KindConflict, "a symbolic link of HDFS is in the way"},
		"SnapshotException":                                   {freshet.KindConflict, "snapshots forbid it"},
		"SnapshotAccessControlException":                      {freshet.KindPermission, "snapshots can't be changed"},
		"AccessControlException":                              {freshet.KindPermission, denied},
		"AuthorizationException":                              {freshet.KindPermission, denied},
		"NSQuotaExceededException":                            {freshet.KindExhausted, quota},
		"DSQuotaExceededException":                            {freshet.KindExhausted, quota},
		"QuotaByStorageTypeExceededException":                 {freshet.KindExhausted, quota},
		"QuotaExceededException":                              {freshet.KindExhausted, quota},
		"MaxDirectoryItemsExceededException":                  {freshet.KindExhausted, "the directory holds as many entries as HDFS allows"},
		"InvalidPathException":                                {freshet.KindInvalid, name},
		"PathComponentTooLongException":                       {freshet.KindInvalid, name},
		"HadoopIllegalArgumentException":                      {freshet.KindInvalid, name},
		"IllegalArgumentException":                            {freshet.KindInvalid, name},
		"UnsupportedOperationException":                       {freshet.KindUnsupported, "this HDFS can't do it"},
		"RpcNoSuchMethodException":                            {freshet.KindUnsupported, "this HDFS can't do it"},
		"SafeModeException":                                   {freshet.KindUnavailable, starting},
		"StandbyException":                                    {freshet.KindUnavailable, "the NameNode is a standby"},
		"RetriableException":                                  {freshet.KindUnavailable, "the NameNode is not ready"},
		"RetryStartFileException":                             {freshet.KindUnavailable, "the NameNode is not ready"},
		"NotReplicatedYetException":                           {freshet.KindUnavailable, "HDFS has not yet stored the blocks before"},
		"ServerTooBusyException":                              {freshet.KindUnavailable, "the NameNode is overloaded"},
		"SaslException":                                       {freshet.KindUnauthenticated, "HDFS does not believe who we are"},
		"CannotObtainBlockLengthException":                    {freshet.KindUnavailable, "another program is writing it"},
		"UnknownCryptoProtocolVersionException":               {freshet.KindUnsupported, "the directory is encrypted, which this driver can't do"},
		"UnknownCipherSuiteException":                         {freshet.KindUnsupported, "the directory is encrypted, which this driver can't do"},
		"FSLimitException$PathComponentTooLongException":      {freshet.KindInvalid, name},
		"FSLimitException$MaxDirectoryItemsExceededException": {freshet.KindExhausted, "the directory holds as many entries as HDFS allows"},
	}
}

// remote returns the NameNode's answer in err, if it is one.
func remote(err error) (answer lib.Error, ok bool) {
	ok = errors.As(err, &answer)
	return answer, ok
}

// exception returns the class name of the NameNode's answer without its package.
func exception(err error) string {
	answer, ok := remote(err)
	if !ok {
		return ""
	}
	class := answer.Exception()
	return class[strings.LastIndexByte(class, '.')+1:]
}

// isException reports whether err is the NameNode's answer of that class.
func isException(err error, class string) bool { return exception(err) == class }

// answered reports whether the NameNode itself answered, if only with an error.
func answered(err error) bool {
	if _, ok := remote(err); ok || err == nil {
		return true
	}
	var own *freshet.Error
	return errors.As(err, &own) || isAny(err, os.ErrNotExist, os.ErrExist, os.ErrPermission, os.ErrInvalid, syscall.ENOTEMPTY)
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// meaningOf classifies an error of the library.
func meaningOf(err error) meaning {
	if answer, ok := remote(err); ok {
		if notADirectory(answer) {
			return meaning{freshet.KindConflict, "a file is where a directory should be"}
		}
		if m, ok := exceptions()[exception(err)]; ok {
			return m
		}
		return meaning{freshet.KindUnavailable, "the NameNode refused"}
	}
	switch {
	case errors.Is(err, errLibrary):
		return meaning{freshet.KindInternal, "a defect of this build"}
	case errors.Is(err, errClosed):
		return meaning{freshet.KindUnavailable, "unmounted"}
	case errors.Is(err, os.ErrNotExist):
		return meaning{freshet.KindNotExist, "does not exist"}
	case errors.Is(err, os.ErrExist):
		return meaning{freshet.KindExist, "exists"}
	case errors.Is(err, os.ErrPermission):
		return exceptions()["AccessControlException"]
	case errors.Is(err, os.ErrInvalid):
		return exceptions()["InvalidPathException"]
	case errors.Is(err, syscall.ENOTEMPTY):
		return exceptions()["PathIsNotEmptyDirectoryException"]
	}
	return meaning{freshet.KindUnavailable, "HDFS can't be reached or failed"}
}

// remoteError is the NameNode's answer without its stack trace.
type remoteError struct {
	text   string
	answer lib.Error
}

func (e *remoteError) Error() string {
	return e.text + " (" + exception(e) + ": " + firstLine(e.answer.Message()) + ")"
}

func (e *remoteError) As(target any) bool {
	p, ok := target.(*lib.Error)
	if ok {
		*p = e.answer
	}
	return ok
}

// isNotDir reports whether the NameNode found a file in the way to a path.
func isNotDir(err error) bool {
	answer, ok := remote(err)
	return ok && (notADirectory(answer) || isException(err, "ParentNotDirectoryException"))
}

// notADirectory: who is not the superuser is told of a file in the path by the
// exception that also says that access is denied.
func notADirectory(answer lib.Error) bool {
	return strings.HasSuffix(answer.Exception(), "AccessControlException") && strings.Contains(firstLine(answer.Message()), "(is not a directory)")
}

// firstLine leaves out the stack trace of a Java program.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), 500)]
}

// fail turns an error of the library into that of the contract. c is the client
// that failed, if there is one.
func fail(ctx context.Context, op, key string, c *client, err error) error {
	if own, ok := errors.AsType[*freshet.Error](err); ok {
		return own
	}
	if ctx.Err() != nil && !answered(err) {
		return ufs.ContextError(ctx, op, key)
	}
	if c != nil {
		if refused := c.denied(); refused != nil && !answered(err) {
			return freshet.Wrap(op, freshet.Path(key), refused)
		}
	}
	m := meaningOf(err)
	if answer, ok := remote(err); ok {
		return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: m.kind, Err: &remoteError{text: m.text, answer: answer}}
	}
	if inner, ok := errors.AsType[*os.PathError](err); ok {
		err = inner.Err // without the library's name of the file
	}
	return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: m.kind, Err: fmt.Errorf("%s: %w", m.text, err)}
}
