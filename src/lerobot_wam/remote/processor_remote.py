"""The pipelines of a policy whose model is elsewhere: those of one whose model is here, guard included."""

from lerobot_wam.processor_wam import make_wam_pre_post_processors

make_wam_remote_pre_post_processors = make_wam_pre_post_processors
