"""What is attacked: everything of lhcq that reads bytes which somebody else may have written."""

from tests.fuzz import hdf5, messages, prompts, records, stores, text
from tests.fuzz.fuzz import Target

TARGETS = (
    Target(name="events", share=24, make=hdf5.make_events, attack=hdf5.attack_events),
    Target(name="real events", share=2, make=hdf5.make_real, attack=hdf5.attack_events),
    Target(name="features", share=16, make=hdf5.make_features, attack=hdf5.attack_features),
    Target(name="frames", share=2, make=hdf5.make_frame, attack=hdf5.attack_frame),
    Target(name="messages", share=22, make=messages.make_message, attack=messages.attack_message),
    Target(name="workspace", share=14, make=records.make_workspace, attack=records.attack_workspace),
    Target(name="dataset", share=2, make=stores.make_dataset, attack=stores.attack_dataset),
    Target(name="master key", share=14, make=text.make_key, attack=text.attack_key),
    Target(name="download", share=14, make=text.make_download, attack=text.attack_download),
    Target(name="model", share=10, make=stores.make_model, attack=stores.attack_model),
    Target(
        name="configuration", share=6, make=prompts.make_configuration, attack=prompts.attack_configuration
    ),
    Target(name="prompts", share=4, make=prompts.make_prompts, attack=prompts.attack_prompts),
)
