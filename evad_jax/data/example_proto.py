"""Declares the message class of `tf.train.Example`, so that reading imports only protobuf.

`Example { Features features = 1 }`, `Features { map<string, Feature> feature = 1 }`, and a Feature
is one of bytes_list = 1, float_list = 2, int64_list = 3, each with a repeated `value = 1`: field
numbers and types as in TensorFlow's `example.proto` and `feature.proto`, hence the same bytes.
(Importing the class that TFDS ships takes about a second in every process that reads.)
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = 'evad_jax'
_Field = descriptor_pb2.FieldDescriptorProto


def _field(message, name: str, kind: int, number: int = 1, repeated=False, type_name='') -> None:
  label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
  field = message.field.add(name=name, number=number, type=kind, label=label)
  if type_name:
    field.type_name = f'.{_PACKAGE}.{type_name}'


def _add_lists(file) -> None:
  """Adds BytesList, FloatList, Int64List, and the Feature that is one of them."""
  feature = file.message_type.add(name='Feature')
  feature.oneof_decl.add(name='kind')
  kinds = {'Bytes': _Field.TYPE_BYTES, 'Float': _Field.TYPE_FLOAT, 'Int64': _Field.TYPE_INT64}
  for number, (name, kind) in enumerate(kinds.items(), start=1):
    values = file.message_type.add(name=f'{name}List')
    _field(values, 'value', kind, repeated=True)
    list_name = f'{name.lower()}_list'
    _field(feature, list_name, _Field.TYPE_MESSAGE, number, type_name=f'{name}List')
    feature.field[-1].oneof_index = 0


def _declare() -> type:
  file = descriptor_pb2.FileDescriptorProto(
    name='evad_jax/example.proto', package=_PACKAGE, syntax='proto3'
  )
  _add_lists(file)
  features = file.message_type.add(name='Features')
  entry = features.nested_type.add(name='FeatureEntry')  # a map is a repeated key-value message
  entry.options.map_entry = True
  _field(entry, 'key', _Field.TYPE_STRING)
  _field(entry, 'value', _Field.TYPE_MESSAGE, 2, type_name='Feature')
  entry_type = 'Features.FeatureEntry'
  _field(features, 'feature', _Field.TYPE_MESSAGE, repeated=True, type_name=entry_type)
  example = file.message_type.add(name='Example')
  _field(example, 'features', _Field.TYPE_MESSAGE, type_name='Features')
  pool = descriptor_pool.DescriptorPool()  # not the default one, whose names TensorFlow needs
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{_PACKAGE}.Example'))


Example = _declare()
